/**
 * Finds out which program wrote an image, and reads what it says.
 */
import { BasedXLError, escaped } from "../errors.ts";
import { ownMark } from "../image/exif.ts";
import { chunkNames, type FoundTexts, readTexts, readTextsOf } from "../image/texts.ts";
import { parseForeign } from "./foreign-json.ts";
import { recipeOfComfyUi } from "./from-comfyui.ts";
import { recipeOfFooocus } from "./from-fooocus.ts";
import { recipeOfInfotext } from "./from-infotext.ts";
import { recipeOfOwn } from "./from-own.ts";
import { recipeOfSwarmUi } from "./from-swarmui.ts";
import { isInfotext } from "./infotext.ts";
import type { Recipe } from "./recipe.ts";

/** An image, and everything that it says. */
export interface InspectedImage {
  format: FoundTexts["format"];
  /** By keyword of a text chunk, or by the tag of EXIF. */
  texts: ReadonlyMap<string, string>;
  /** A1111's text, or what stands in its place. */
  parameters: string | undefined;
  /** null where nothing says how the image was made. */
  recipe: Recipe | null;
  problems: readonly string[];
}

/** Throws "io" for what is no image. */
export function inspectImage(path: string): InspectedImage {
  const found = readTexts(path);
  const { format, problems } = found;
  const image = { format, ...shownTexts(found) };
  try {
    return { ...image, recipe: recipeIn(found, path), problems };
  } catch (error) {
    if (!(error instanceof BasedXLError)) throw error;
    return { ...image, recipe: null, problems: [...problems, error.message.replace(/\.$/, "")] };
  }
}

/** The texts of an image in memory, and A1111's among them. Throws "io" for what is no image. */
export function textsInBytes(bytes: Uint8Array): Pick<InspectedImage, "texts" | "parameters"> {
  return shownTexts(readTextsOf(bytes));
}

/** Throws "io" for what is no image, "bad-option" for an image that says nothing. */
export function readRecipe(path: string): Recipe {
  const texts = readTexts(path);
  const recipe = recipeIn(texts, path);
  if (recipe !== null) return recipe;
  const problems = texts.problems.map((problem) => `; ${problem}`).join("");
  throw new BasedXLError(
    "bad-option",
    `${escaped(path, 300)} has no parameters of BasedXL, A1111, ComfyUI, SwarmUI or Fooocus` +
      `${problems}.`,
  );
}

/** A1111's text of the image at `path`, and this program's; none where it says nothing. */
export function textsAt(path: string): { parameters: string | undefined; own: string | undefined } {
  try {
    const { parameters, own } = namedTexts(readTexts(path));
    return { parameters, own };
  } catch (error) {
    // Formats whose texts are not read.
    if (error instanceof BasedXLError && error.code === "io") return noTexts;
    throw error;
  }
}

// --- internal ---

const noTexts = { parameters: undefined, own: undefined };

function shownTexts(found: FoundTexts): Pick<InspectedImage, "texts" | "parameters"> {
  const { parameters } = namedTexts(found);
  return { texts: new Map([...found.chunks, ...found.exif]), parameters };
}

function recipeIn(texts: FoundTexts, path: string): Recipe | null {
  const { own, parameters, graph } = namedTexts(texts);
  const ownJson = own === undefined ? null : parseForeign(own);
  if (ownJson !== null) return recipeOfOwn(ownJson, path);
  const text = parameters?.slice(0, textMax);
  const json = text === undefined ? null : parseForeign(text);
  const ofJson = json && (recipeOfSwarmUi(json) ?? recipeOfFooocus(json) ?? recipeOfComfyUi(json));
  if (ofJson) return ofJson;
  if (text !== undefined && isInfotext(text)) return recipeOfInfotext(text);
  const graphJson = graph === undefined ? null : parseForeign(graph);
  const ofGraph = graphJson && recipeOfComfyUi(graphJson);
  if (ofGraph) return ofGraph;
  // A prompt alone is better than nothing.
  const isPrompt = json === null && text !== undefined && text.trim() !== "";
  return isPrompt && !/^\s*[{[]/.test(text) ? recipeOfInfotext(text) : null;
}

/** Of this program, of A1111 (or JSON in its place), and of ComfyUI, where there are any. */
function namedTexts({ chunks, exif }: FoundTexts) {
  const note = exif.get("MakerNote");
  // ComfyUI writes its graph into tags of EXIF that name cameras.
  const tagged = [...exif.values()].find((text) => /^prompt:\s*\{/i.test(text));
  return {
    own:
      chunks.get(chunkNames.own) ??
      (note?.startsWith(ownMark) ? note.slice(8) || undefined : undefined),
    parameters: chunks.get(chunkNames.parameters) ?? exif.get("UserComment"),
    graph: chunks.get("prompt") ?? tagged?.slice("prompt:".length),
  };
}

/** Prompts of a book's length are none. */
const textMax = 2 ** 20;
