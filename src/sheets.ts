/**
 * Sheets of several images with labels (`--grid`), and images that differ in one to three settings
 * (`--xyz`). In reading order: `values.ts` reads the text of axes, `axes.ts` makes cells of them,
 * `sheet.ts` puts images and labels together, `labels.ts` and `font.ts` draw texts.
 */
export {
  type Axis,
  type Cell,
  cellsOf,
  describeAxes,
  inRunOrder,
  parseAxes,
} from "./sheets/axes.ts";
export { reductionOf, Sheet, type SheetPlan } from "./sheets/sheet.ts";
