/**
 * A request of another program in the settings of this one: what an image's metadata would only
 * warn of is refused, since whoever asks is there to be told.
 */
import type { BasedXLError } from "../../errors.ts";
import { Recipe } from "../../metadata/recipe.ts";

export class RequestedRecipe extends Recipe {
  protected override refuse(error: BasedXLError): void {
    throw error;
  }
}
