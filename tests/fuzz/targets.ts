/**
 * All targets of TypeScript; those of the native library are in zig/fuzz.zig.
 */
import type { Target } from "./target.ts";
import { httpTarget, requestTarget } from "./targets/http.ts";
import { hubTarget, transferTarget } from "./targets/hub.ts";
import { imageTarget, recipeTarget } from "./targets/images.ts";
import { storeTarget } from "./targets/jobs.ts";
import { configTarget, headerTarget } from "./targets/models.ts";
import { promptTarget, textTarget } from "./targets/prompts.ts";
import { rendezvousTarget } from "./targets/rendezvous.ts";
import { tokenizerTarget } from "./targets/tokenizers.ts";

export const targets: readonly Target[] = [
  ...[configTarget, tokenizerTarget, headerTarget, promptTarget, textTarget, imageTarget],
  ...[recipeTarget, httpTarget, requestTarget, hubTarget, transferTarget, rendezvousTarget],
  storeTarget,
];
