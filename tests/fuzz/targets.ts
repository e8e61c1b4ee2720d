/**
 * All targets of TypeScript; those of the native library are in zig/fuzz.zig.
 */
import type { Target } from "./target.ts";
import { httpTarget, requestTarget } from "./targets/http.ts";
import { imageTarget, recipeTarget } from "./targets/images.ts";
import { storeTarget } from "./targets/jobs.ts";
import { configTarget, headerTarget, tokenizerTarget } from "./targets/models.ts";
import { hubTarget, rendezvousTarget } from "./targets/network.ts";
import { promptTarget, textTarget } from "./targets/prompts.ts";

export const targets: readonly Target[] = [
  ...[configTarget, tokenizerTarget, headerTarget, promptTarget, textTarget, imageTarget],
  ...[recipeTarget, httpTarget, requestTarget, hubTarget, rendezvousTarget, storeTarget],
];
