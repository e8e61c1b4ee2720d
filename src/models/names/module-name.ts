/**
 * A module's path in diffusers and in original files, and how paths are made from the table.
 */
import type { NamePair } from "./table.ts";

export interface ModuleName {
  /** Path in diffusers, without ".weight" and ".bias". */
  diffusers: string;
  /** Path in original files, the same as in SGM, LDM and OpenCLIP. */
  original: string;
  /** The module is this part of the original one's first dimension. */
  part?: readonly [index: number, count: number];
  /**
   * The original's keys where they are not `original`.weight and .bias: "_" for in_proj_weight,
   * null for a matrix that has no module around it.
   */
  joint?: "_" | null;
  /** The original's matrix is (in, out). */
  transposed?: boolean;
}

/** Fills a pair's indices in. */
export function placed(pair: NamePair, indices: Record<string, number | string>): ModuleName {
  const fill = (path: string) => path.replaceAll(/\{(\w+)\}/g, (_, name) => `${indices[name]}`);
  return { diffusers: fill(pair[0]), original: fill(pair[1]) };
}

/** The modules `pairs` inside `outer`. */
export function inside(outer: ModuleName, pairs: readonly NamePair[]): ModuleName[] {
  return pairs.map(([diffusers, original]) => ({
    diffusers: `${outer.diffusers}.${diffusers}`,
    original: `${outer.original}.${original}`,
  }));
}
