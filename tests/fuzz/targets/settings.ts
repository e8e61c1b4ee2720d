/**
 * What a user's own files and words say: settings of the server in TOML and variables, values of
 * flags, lists of prompts, styles and words, folders of ComfyUI in YAML, names of models on the
 * hub, and the caches of earlier runs, which may be damaged.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RepositoryCache } from "../../../src/hub/cache.ts";
import { hubReference, showReference } from "../../../src/hub/reference.ts";
import { readExtraPaths } from "../../../src/library/extra-paths.ts";
import { HashCache } from "../../../src/library/hashes.ts";
import { readConfig } from "../../../src/serve/config.ts";
import { withPrompts } from "../../../src/settings/sample-prompts.ts";
import { type SettingKey, settingKeys } from "../../../src/settings/table.ts";
import { formatSetting, parseSetting } from "../../../src/settings/values.ts";
import { mutateJson, mutateText } from "../mutate.ts";
import type { Random } from "../random.ts";
import { target } from "../target.ts";

interface Kind {
  make(random: Random): string;
  read(text: string): unknown;
}

const folder = mkdtempSync(join(tmpdir(), "basedxl-fuzz-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));

/** The path of a file with that text. */
function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const toml = [
  'host = "127.0.0.1"\nport = 8080\nmodel = ["mini", "other"]\nmax_queue = 4 # jobs\n',
  'api_key = ["one=abcdefgh"]\nshare = "auto"\nqueue = "redis://a:1"\nstore = "s3://b/c"\n',
].join("");
const tomlPieces = [
  "[",
  "]",
  "=",
  '"',
  "'''",
  "\n",
  "#",
  "{",
  "}",
  ",",
  "1e999",
  "true",
  "2026-01-01",
];
const yaml = [
  "comfyui:\n  base_path: ~/comfy\n  is_default: true\n  loras: |\n    models/loras\n    b # c\n",
  "other:\n  checkpoints: ../x\n  vae: $HOME/v\n",
].join("");
const yamlPieces = [
  "\n",
  "  ",
  ":",
  "- ",
  "&a ",
  "*a",
  "|",
  ">",
  "{",
  "}",
  "!!js",
  "<<: ",
  "~",
  "? ",
];
const flags: [key: SettingKey, text: string][] = [
  ["loras", "style.safetensors:0.5:0.7"],
  ["controlnet", "canny"],
  ["controlType", "openpose,3"],
  ["seed", "7"],
  ["stepCount", "20"],
  ["guidanceScale", "7.5"],
  ["width", "1024"],
];
const references = [
  ...["org/name", "org/name@main:unet/a.safetensors", "hf://org/name@v1/file.safetensors"],
  ...["https://huggingface.co/org/name/blob/main/a.safetensors?download=true"],
];
const referencePieces = ["/", "@", ":", "..", "%2e", "?", "#", "hf://", "blob", "resolve", "\\"];
const commit = "0123456789abcdef0123456789abcdef01234567";
const record = {
  model: { path: "unet", files: ["unet/a", "b"] },
  file: { path: "b", files: ["b"] },
};
const hashes = {
  version: 1,
  files: { [join(folder, "hashes.json")]: ["12", "34", "ab".repeat(32)] },
};
const cache = new RepositoryCache(join(folder, "hub"), "a/b");
cache.prepare();
mkdirSync(join(cache.root, ".basedxl"));
mkdirSync(join(cache.root, "refs"));
mkdirSync(join(folder, "words"));
const texts = [
  "a __animals__ {b|c}\n\nd\n",
  "name,prompt\nbold,{prompt} bold\n",
  "cat\n# dog\n{a|b}\n",
];
const textPieces = ["\n", "\r\n", "#", ",", '"', "{", "}", "|", "__animals__", "{prompt}", "\0"];

const kinds: Kind[] = [
  {
    make: (random) => mutateText(random, toml, tomlPieces),
    read: (text) => readConfig({ flags: { "config-file": file("serve.toml", text) }, env: {} }),
  },
  {
    make(random) {
      const name = random.pick(["API_KEY", "PORT", "SHARE", "MODEL", "ALLOW_HOST", "QUEUE"]);
      const text = random.pick(["abcdefgh,two=ijklmnop", "2x2", "redis://a"]);
      return `${name}=${mutateText(random, text, [",", "=", " ", "0", "auto", "x"])}`;
    },
    read(text) {
      const [name = "", ...rest] = text.split("=");
      return readConfig({ flags: {}, env: { [`BASEDXL_SERVE_${name}`]: rest.join("=") } });
    },
  },
  {
    make: (random) => mutateText(random, yaml, yamlPieces),
    read: (text) => readExtraPaths(file("extra.yaml", text), () => {}, { HOME: "/h" }),
  },
  {
    make(random) {
      const [key, text] = random.once(4) ? [random.pick(settingKeys), "1"] : random.pick(flags);
      return `${key} ${mutateText(random, text, [":", ",", ".", "-", "1e9", "auto", "none", "x"])}`;
    },
    read(text) {
      const key = text.slice(0, text.indexOf(" ")) as SettingKey;
      formatSetting(key, parseSetting(key, text.slice(key.length + 1)));
    },
  },
  {
    make: (random) => mutateText(random, random.pick(references), referencePieces),
    read(text) {
      const reference = hubReference(text, "https://hub.test");
      if (reference !== null) showReference(reference);
    },
  },
  {
    make: (random) => mutateText(random, texts.join("\f"), textPieces),
    read: readPromptFiles,
  },
  {
    make: (random) => mutateJson(random, record, ["vae", "file"]),
    read(text) {
      file(`hub/models--a--b/.basedxl/${commit}.json`, text);
      file("hub/models--a--b/refs/main", text);
      cache.commitOf("main");
      for (const use of ["model", "vae", "file"] as const) cache.recorded(commit, use);
    },
  },
  {
    make: (random) => mutateJson(random, hashes, ["version", "files"]),
    read(text) {
      file("hashes.json", text);
      new HashCache(folder).fileWith("ab");
    },
  },
];

export const settingTarget = target(
  "settings",
  (random) => {
    const which = random.below(kinds.length);
    return { which, text: kinds[which]!.make(random) };
  },
  ({ which, text }) => kinds[which]!.read(text),
);

// --- internal ---

function readPromptFiles(text: string): void {
  const [prompts = "", styles = "", words = ""] = text.split("\f");
  file("words/animals.txt", words);
  withPrompts({
    ...{ promptFile: file("prompts.txt", prompts), stylesPath: file("styles.csv", styles) },
    ...{ style: "bold", dynamicPrompts: true, wildcards: join(folder, "words") },
    ...{ imageCount: 2, seeds: [7n], prompt: undefined, negativePrompt: undefined },
  } as never);
}
