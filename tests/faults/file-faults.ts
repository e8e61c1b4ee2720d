/**
 * A model's files that are cut, replaced, deleted or unreadable, before a run or in the middle.
 */
import {
  appendFileSync,
  cpSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { Fault } from "./fault.ts";
import type { Run } from "./run.ts";

const unet = "unet/diffusion_pytorch_model.safetensors";

/** Before the program starts; the files are put back for the next. */
function damaged(
  name: string,
  file: string,
  change: (path: string) => void,
  ends: RegExp | null,
): Fault {
  return {
    ...{ name, ends },
    apply(run) {
      keep(run);
      change(join(run.folder, "model", file));
    },
  };
}

/** While the program generates. */
function damagedMeanwhile(
  name: string,
  change: (path: string, folder: string) => void,
  ends: RegExp | null,
): Fault {
  return {
    ...{ name, ends },
    apply(run) {
      keep(run);
      run.during.push(() => change(join(run.folder, "model", unet), run.folder));
    },
  };
}

/** Calls of Bun that read the model's small files: configs, tokenizers. */
function unreadable(name: string, spec: string, ends: RegExp | null): Fault {
  return {
    ...{ name, ends },
    apply: ({ calls, folder }) => void calls.push(`read:${spec}:${join(folder, "model")}`),
  };
}

const lost = /^error: .*unet.*was changed, cut short or lost while it was in use/;
const overwrite = (path: string) => writeFileSync(path, readFileSync(path).fill(0x11, 100_000));

export const fileFaults: readonly Fault[] = [
  damaged(
    "weights are cut",
    unet,
    (path) => truncateSync(path, 5000),
    /^error: .*unet.*(cut|short|beyond|end|bytes)/,
  ),
  damaged("weights are empty", unet, (path) => truncateSync(path, 0), /^error: .*unet.*empty/),
  damaged("weights are gone", unet, (path) => rmSync(path), /^error: .*unet has no weights/),
  damaged(
    "weights are longer",
    unet,
    (path) => appendFileSync(path, "more"),
    /^error: .*unet.*too long/,
  ),
  damaged("weights are a Git LFS pointer", unet, pointer, /^error: .*Git LFS pointer/),
  damaged(
    "weights are of zeros",
    unet,
    (path) => writeFileSync(path, Buffer.alloc(9000)),
    /^error: .*unet/,
  ),
  damaged(
    "a config is cut",
    "unet/config.json",
    (path) => truncateSync(path, 40),
    /^error: .*unet.config\.json/,
  ),
  damaged("a config is gone", "vae/config.json", (path) => rmSync(path), /^error: .*vae/),
  damaged(
    "a tokenizer is cut",
    "tokenizer/vocab.json",
    (path) => truncateSync(path, 9),
    /^error: .*vocab\.json/,
  ),
  damaged(
    "a tokenizer is gone",
    "tokenizer_2/merges.txt",
    (path) => rmSync(path),
    /^error: .*tokenizer_2/,
  ),
  damaged(
    "model_index.json is gone",
    "model_index.json",
    (path) => rmSync(path),
    /^error: --model model is a folder of models/,
  ),
  unreadable("a read of the model's files fails", "EIO:2:1", /^error: .*(EIO|i\/o)/),
  unreadable("all reads of the model's files fail", "EIO:1:999", /^error: .*(EIO|i\/o)/),
  unreadable("the model's disk is slow", "slow:1:10", null),
];

/** Of a run that lasts. */
export const fileFaultsMeanwhile: readonly Fault[] = [
  damagedMeanwhile("weights are cut while mapped", (path) => truncateSync(path, 1000), lost),
  damagedMeanwhile("weights are overwritten while mapped", overwrite, lost),
  damagedMeanwhile("weights are deleted while mapped", (path) => rmSync(path), null),
  damagedMeanwhile(
    "weights are replaced while mapped",
    (path, folder) => {
      writeFileSync(join(folder, "other"), "other");
      renameSync(join(folder, "other"), path);
    },
    null,
  ),
  damagedMeanwhile(
    "the model is deleted while it is used",
    (_, folder) => rmSync(join(folder, "model"), { recursive: true }),
    null,
  ),
  damagedMeanwhile(
    "the folder of results is deleted meanwhile",
    (_, folder) => rmSync(join(folder, "out"), { recursive: true }),
    /^error: Cannot write .*does not exist/,
  ),
];

// --- internal ---

/** Puts the model and the results' folder back for the next run. */
function keep(run: Run): void {
  const kept = ["model", "out"];
  for (const name of kept)
    cpSync(join(run.folder, name), join(run.folder, `kept-${name}`), { recursive: true });
  run.mended.push(() => {
    rmSync(join(run.folder, "model"), { recursive: true, force: true });
    renameSync(join(run.folder, "kept-model"), join(run.folder, "model"));
    cpSync(join(run.folder, "kept-out"), join(run.folder, "out"), {
      recursive: true,
      force: false,
    });
    rmSync(join(run.folder, "kept-out"), { recursive: true });
  });
}

function pointer(path: string): void {
  const oid = "7".repeat(64);
  writeFileSync(path, `version https://git-lfs.github.com/spec/v1\noid sha256:${oid}\nsize 513\n`);
}
