/**
 * stable-diffusion.cpp beside this backend: its sd-cli generates images with the same full-size
 * model, and the times that it reports per network are compared with ours, in turns.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { BasedXLError } from "../errors.ts";
import { openModelFolder } from "../models/folder.ts";
import { nativeModelOf } from "../models/native-model.ts";
import { ModelParts } from "../native/testing.ts";
import type { CpuDtype } from "../settings/names.ts";
import { runPart } from "./cpu-models.ts";
import { median } from "./cpu-ops.ts";

/** Its text encoders' time includes reading their weights, so they are left out. */
const sdcppOps = ["unet", "vae"] as const;
type SdcppOp = (typeof sdcppOps)[number];

export interface Sdcpp {
  /** Of sd-cli. */
  path: string;
  /** Of its weights; null for the files' own. */
  type: string | null;
}

export interface SdcppRow {
  op: SdcppOp;
  side: number;
  dtype: CpuDtype;
  /** Medians. */
  milliseconds: number;
  sdcppMilliseconds: number;
  /** Median of its time over ours, pair by pair. */
  ratio: number;
}

type Times = Record<SdcppOp, number>;

/** Times every network at `side` in each type; the first run of each is discarded. */
export async function timeSdcpp(
  sdcpp: Sdcpp,
  folder: string,
  side: number,
  dtypes: readonly CpuDtype[],
  pairCount: number,
): Promise<SdcppRow[]> {
  const model = await openModelFolder(folder);
  const opened = await Promise.all(
    dtypes.map(async (dtype) => ({
      dtype,
      parts: await ModelParts.open(nativeModelOf(model), { dtype }),
    })),
  );
  const latent = side / model.vaeFactor;
  const runs: { theirs: Times; ours: Times[] }[] = [];
  try {
    for (let i = 0; i <= pairCount; i++) {
      const theirs = await runTheirs(sdcpp, folder, side);
      const ours: Times[] = [];
      for (const { parts } of opened) {
        ours.push({
          unet: await runPart(parts, "unet", latent),
          vae: await runPart(parts, "vae", latent),
        });
      }
      if (i > 0) runs.push({ theirs, ours });
    }
  } finally {
    for (const { parts } of opened) await parts.close();
  }
  return sdcppOps.flatMap((op) =>
    dtypes.map((dtype, j) => ({
      op,
      side,
      dtype,
      milliseconds: median(runs.map(({ ours }) => ours[j]![op])),
      sdcppMilliseconds: median(runs.map(({ theirs }) => theirs[op])),
      ratio: median(runs.map(({ theirs, ours }) => theirs[op] / ours[j]![op])),
    })),
  );
}

// --- internal ---

/** A UNet call is half of three steps less one: the first step includes preparations. */
async function runTheirs(sdcpp: Sdcpp, folder: string, side: number): Promise<Times> {
  const one = await drawTheirs(sdcpp, folder, side, 1);
  const three = await drawTheirs(sdcpp, folder, side, 3);
  return {
    unet:
      (millisecondsOf(three, "sampling completed") - millisecondsOf(one, "sampling completed")) / 2,
    vae: millisecondsOf(three, "decode_first_stage completed"),
  };
}

/** Generates an image without guidance (one UNet call per step); returns sd-cli's output. */
async function drawTheirs(
  sdcpp: Sdcpp,
  folder: string,
  side: number,
  stepCount: number,
): Promise<string> {
  const out = mkdtempSync(join(tmpdir(), "basedxl-sdcpp-"));
  try {
    const flags = [
      ["--model", folder, "--prompt", "a red circle", "--output", join(out, "out.png")],
      ["--width", String(side), "--height", String(side), "--steps", String(stepCount)],
      ["--cfg-scale", "1", "--sampling-method", "euler", "--seed", "1"],
      ["--threads", String(availableParallelism())],
      sdcpp.type === null ? [] : ["--type", sdcpp.type],
    ].flat();
    const child = Bun.spawn([sdcpp.path, ...flags], { stdout: "pipe", stderr: "pipe" });
    const [output, errors, exitCode] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    if (exitCode === 0) return output + errors;
    const last = (output + errors).trim().split("\n").at(-1);
    throw new BasedXLError("internal", `${sdcpp.path} ended with ${exitCode}: ${last}`);
  } finally {
    rmSync(out, { recursive: true });
  }
}

/** Milliseconds of a line "WHAT, taking 1.23s". */
function millisecondsOf(output: string, what: string): number {
  const seconds = output.split(`${what}, taking `).at(1);
  if (seconds === undefined) throw new BasedXLError("internal", `sd-cli did not report "${what}".`);
  return 1e3 * Number.parseFloat(seconds);
}
