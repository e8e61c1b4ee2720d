/**
 * Folders of models in the layouts of other programs, and models by name in them.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, relative } from "node:path";
import { readExtraPaths } from "../../src/library/extra-paths.ts";
import { Library, modelFolders, resolveModelFile } from "../../src/library/resolve.ts";
import { scanFolders } from "../../src/library/scan.ts";
import { openModelFile } from "../../src/models/hub-files.ts";
import { resolveModelPath } from "../../src/models/locate.ts";
import { refusal } from "../support/refusal.ts";

// Thousands of files take long on a machine that builds something else.
setDefaultTimeout(60_000);

const root = mkdtempSync(join(tmpdir(), "basedxl-library-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let treeCount = 0;

/** The smallest safetensors file. */
const weights = Buffer.from("\x02\0\0\0\0\0\0\0{}", "latin1");
const pickle = Buffer.from("\x80\x02}q\0(X\x10\0\0", "latin1");

function contentOf(name: string): Buffer {
  return /\.(pt|pth|ckpt)$/.test(name) ? pickle : weights;
}

/** A new folder with these files; those that end in "/" are folders. */
function tree(...names: string[]): string {
  const folder = join(root, `tree${treeCount++}`);
  mkdirSync(folder);
  for (const name of names) put(folder, name);
  return folder;
}

function put(folder: string, name: string, content: string | Buffer = contentOf(name)): string {
  const path = join(folder, name);
  mkdirSync(name.endsWith("/") ? path : dirname(path), { recursive: true });
  if (!name.endsWith("/")) writeFileSync(path, content);
  return path;
}

/** "kind name" of everything that is found. */
function found(...roots: string[]): string[] {
  return new Library(roots).all().map(({ folder, name }) => `${folder.kind} ${name}`);
}

describe("layouts", () => {
  const comfy = [
    "models/checkpoints/sdxl/base.safetensors",
    "models/loras/detail.safetensors",
    "models/loras/style/ink.safetensors",
    "models/vae/fix.safetensors",
    "models/embeddings/worst.safetensors",
    "models/controlnet/depth.safetensors",
    "models/upscale_models/4x.pth",
    "models/clip_vision/vit.safetensors",
    "models/ipadapter/faces.safetensors",
    "models/unknown/thing.safetensors",
  ];
  const wanted = [
    "checkpoint sdxl/base.safetensors",
    "clip-vision vit.safetensors",
    "controlnet depth.safetensors",
    "embedding worst.safetensors",
    "ip-adapter faces.safetensors",
    "lora detail.safetensors",
    "lora style/ink.safetensors",
    "upscaler 4x.pth",
    "vae fix.safetensors",
    "any unknown/thing.safetensors",
  ];

  test("ComfyUI, by its root or its folder of models", () => {
    const folder = tree(...comfy, "custom_nodes/x/weights.pth", "output/a.safetensors");
    expect(found(folder)).toEqual(wanted);
    expect(found(join(folder, "models"))).toEqual(wanted);
    // The same folder twice is one folder.
    expect(found(folder, join(folder, "models"))).toEqual(wanted);
  });

  test("A1111 and Forge, with embeddings beside their folder of models", () => {
    const folder = tree(
      "models/Stable-diffusion/base.safetensors",
      "models/Lora/detail.safetensors",
      "models/LyCORIS/old.safetensors",
      "models/VAE/fix.safetensors",
      "models/ControlNet/depth.safetensors",
      "embeddings/worst.safetensors",
    );
    const all = [
      "controlnet depth.safetensors",
      "lora detail.safetensors",
      "lora old.safetensors",
      "checkpoint base.safetensors",
      "vae fix.safetensors",
      "embedding worst.safetensors",
    ];
    expect(found(folder)).toEqual(all);
    expect(found(join(folder, "models"))).toEqual(all);
  });

  test("other programs' spellings", () => {
    const folder = tree("Models/StableDiffusion/a.safetensors", "Models/Text Encoders/t.sft");
    expect(found(folder)).toEqual(["checkpoint a.safetensors", "other t.sft"]);
  });

  test("a plain folder: files of any kind, diffusers folders as one model each", () => {
    const folder = tree(
      "a.safetensors",
      "deep/b.ckpt",
      "sdxl/model_index.json",
      "sdxl/unet/diffusion_pytorch_model.safetensors",
      "vae-fix/config.json",
      "vae-fix/diffusion_pytorch_model.safetensors",
      "readme.md",
      ".cache/c.safetensors",
      "half.safetensors.part",
    );
    expect(found(folder)).toEqual([
      "any a.safetensors",
      "any deep/b.ckpt",
      "any half.safetensors.part",
      "any sdxl",
      "any vae-fix",
    ]);
    expect(found(join(folder, "sdxl"))).toEqual(["any sdxl"]);
  });

  test("the hub's cache: the current snapshot of each model", () => {
    const folder = tree(
      "models--acme--sdxl/snapshots/abc/model_index.json",
      "models--acme--lora/snapshots/abc/pytorch_lora_weights.safetensors",
      "models--acme--none/refs/main",
      "version.txt",
    );
    expect(found(folder)).toEqual([
      "any acme/lora/pytorch_lora_weights.safetensors",
      "any acme/sdxl",
    ]);
    const snapshot = join(folder, "models--acme--lora/snapshots/abc");
    expect(resolveModelFile("lora", "acme/lora", [folder])).toBe(
      join(snapshot, "pytorch_lora_weights.safetensors"),
    );
    expect(resolveModelFile("checkpoint", "sdxl", [folder])).toEndWith("sdxl/snapshots/abc");
  });
});

describe("extra_model_paths.yaml", () => {
  test("base paths, lines, defaults first, sections of A1111", () => {
    const folder = tree("web/models/Lora/a.safetensors", "web/models/LyCORIS/b.safetensors");
    put(folder, "big/vae/c.safetensors");
    const yaml = put(
      folder,
      "extra_model_paths.yaml",
      `# a comment
a111:
    base_path: web/
    loras: |
         models/Lora
         models/LyCORIS  # older
    embeddings: embeddings
empty:
comfyui:
    base_path: \${BIG}/
    is_default: true
    vae: vae/
`,
    );
    const warnings: string[] = [];
    const env = { BIG: join(folder, "big") };
    const paths = readExtraPaths(yaml, (sentence) => warnings.push(sentence), env);
    expect(warnings).toEqual([]);
    expect(paths.map(({ name, path }) => `${name} ${relative(folder, path)}`)).toEqual([
      "vae big/vae",
      "loras web/models/Lora",
      "loras web/models/LyCORIS",
      "embeddings web/embeddings",
    ]);
    // Without the variable its folder is not there, which is a warning.
    const library = new Library([yaml]);
    expect(library.all().map(({ name }) => name)).toEqual(["a.safetensors", "b.safetensors"]);
    expect(library.warnings).toHaveLength(2);
    expect(library.warnings.join()).toMatch(/names the folder .*embeddings, which is not there/);
  });

  test("is read in a root of ComfyUI", () => {
    const folder = tree("models/loras/a.safetensors", "more/b.safetensors");
    put(folder, "extra_model_paths.yaml", "x:\n  loras: more\n");
    expect(found(folder)).toEqual(["lora a.safetensors", "lora b.safetensors"]);
  });

  const levels = Array.from(
    { length: 30 },
    (_, i) => `a${i + 1}: &a${i + 1} [${`*a${i},`.repeat(9)}]`,
  );
  for (const [what, text] of [
    ["aliases that multiply", ["a0: &a0 [x]", ...levels].join("\n")],
    ["deep nesting", "[".repeat(100_000)],
    ["no table", "- a\n- b\n"],
    ["a syntax error", "a:\n\tb: c\n"],
    ["a huge file", `a: "${"x".repeat(2 ** 19)}"`],
    ["thousands of folders", `a:\n  loras: |\n${"    x\n".repeat(5000)}`],
    ["an escape in its message", 'a: "\x1b[31m'],
  ] as const) {
    test(`with ${what} is a warning`, () => {
      const yaml = put(tree(), "extra_model_paths.yaml", text);
      const warnings: string[] = [];
      expect(readExtraPaths(yaml, (sentence) => warnings.push(sentence), {})).toEqual([]);
      expect(warnings).toHaveLength(1);
      expect(warnings[0]).toMatch(/is not read: .*\.$/);
      expect(warnings[0]).not.toMatch(/\p{Cc}/u);
    });
  }

  test("with odd values takes what is a folder", () => {
    const yaml = put(tree(), "x.yaml", "a:\n  loras: 1\n  vae: [x]\n  base_path: 3\nb: text\n");
    expect(readExtraPaths(yaml, (sentence) => expect(sentence).toBe(""), {})).toEqual([]);
  });
});

describe("hostile folders", () => {
  test("links in circles end, and what is linked is found once", () => {
    const folder = tree("models/loras/a.safetensors", "elsewhere/b.safetensors");
    const loras = join(folder, "models/loras");
    symlinkSync("..", join(loras, "up"));
    symlinkSync(".", join(loras, "self"));
    symlinkSync("circle", join(loras, "circle"));
    symlinkSync(join(folder, "elsewhere"), join(loras, "linked"));
    symlinkSync(join(folder, "elsewhere/b.safetensors"), join(loras, "b.safetensors"));
    expect(found(folder)).toEqual([
      "lora a.safetensors",
      "lora b.safetensors",
      "lora linked/b.safetensors",
    ]);
    // Two ways to one file are no two models.
    expect(basename(resolveModelFile("lora", "b", [folder]))).toBe("b.safetensors");
  });

  test("a folder that cannot be read is a warning", () => {
    const folder = tree("a.safetensors", "file");
    const library = new Library([folder, join(folder, "none"), join(folder, "file")]);
    expect(library.all().map(({ name }) => name)).toEqual(["a.safetensors"]);
    expect(library.warnings).toEqual([
      expect.stringMatching(/none does not exist or cannot be read/),
      expect.stringMatching(/file is not a folder/),
    ]);
    const warnings: string[] = [];
    const closed = [{ path: join(folder, "file"), kind: "lora" as const }];
    expect(scanFolders(closed, (sentence) => warnings.push(sentence))).toEqual([]);
    expect(warnings).toEqual([expect.stringMatching(/file cannot be read \(ENOTDIR/)]);
  });

  test("10,000 files, each found by its name", () => {
    const folder = tree("loras/");
    for (let i = 0; i < 10_000; i++) writeFileSync(join(folder, "loras", `l${i}.safetensors`), "");
    const library = new Library([folder]);
    expect(library.find("lora", "l9999")).toBe(join(folder, "loras/l9999.safetensors"));
    expect(library.find("lora", "none")).toBeNull();
    expect(library.absence("lora", "l99999")).toMatch(/Did you mean l9999, l\d+ or l\d+\? Looked/);
  });

  test("escapes in names do not reach a message", async () => {
    const folder = tree("loras/red\x1b[31m.safetensors");
    const message = await refusal(() => resolveModelFile("lora", "red", [folder]), "bad-model");
    expect(message).toContain("Did you mean red\\u001b[31m?");
  });
});

describe("names", () => {
  const folder = tree(
    "loras/detail.safetensors",
    "loras/detail.pt",
    "loras/Ink.safetensors",
    "loras/a/twin.safetensors",
    "loras/b/twin.safetensors",
    "loras/old.ckpt",
    "loras/half.safetensors.crdownload",
    "loras/v1.5 mix.safetensors",
    "checkpoints/detail.safetensors",
    "checkpoints/juggernautXL_v9.safetensors",
    "embeddings/sub/Worst.safetensors",
  );
  const lora = (value: string) => relative(folder, resolveModelFile("lora", value, [folder]));

  for (const [value, path] of [
    ["detail", "loras/detail.safetensors"],
    ["detail.safetensors", "loras/detail.safetensors"],
    ["ink", "loras/Ink.safetensors"],
    ["INK.SAFETENSORS", "loras/Ink.safetensors"],
    ["a/twin", "loras/a/twin.safetensors"],
    ["a\\twin", "loras/a/twin.safetensors"],
    ["v1.5 mix", "loras/v1.5 mix.safetensors"],
    ["detail [0123456789]", "loras/detail.safetensors"],
  ] as const)
    test(value, () => expect(lora(value)).toBe(path));

  for (const [value, code, sentence] of [
    [
      "twin",
      "bad-model",
      /"twin" may be .*a\/twin.* or .*b\/twin\.safetensors: name one by its path/,
    ],
    [
      "detial",
      "bad-model",
      /^The LoRA "detial" is not in the folders of models\. Did you mean detail/,
    ],
    ["nothing-like-it", "bad-model", /folders of models\. Looked in .*tree\d+\.$/],
    ["detail.pt", "bad-weights", /detail\.pt holds pickled weights.*because they can run code/],
    ["old", "bad-weights", /old\.ckpt holds pickled weights/],
    ["half", "bad-weights", /half\.safetensors\.crdownload is an unfinished download/],
    ["./detail", "bad-model", /^The LoRA "\.\/detail" does not exist\.$/],
    ["../detail", "bad-model", /does not exist/],
    ["checkpoints/detail", "bad-model", /is not in the folders of models/],
    [
      "worst",
      "bad-model",
      /^The LoRA "worst" is an embedding, not a LoRA: .*Worst\.safetensors; name it with --embedd/,
    ],
    ["", "bad-model", /^The LoRA "" is not in the folders/],
  ] as const) {
    test(`${value} is refused`, async () => {
      const message = await refusal(() => lora(value), code);
      expect(message).toMatch(sentence);
    });
  }

  test("a path that exists wins, and its neighbours are near", async () => {
    const path = join(folder, "loras/a/twin.safetensors");
    expect(resolveModelFile("lora", path, [])).toBe(path);
    const message = await refusal(
      () => resolveModelFile("lora", path.replace("twin", "tvin"), []),
      "bad-model",
    );
    expect(message).toEndWith(`Did you mean ${path}?`);
    expect(await refusal(() => resolveModelFile("lora", "detail", []), "bad-model")).toMatch(
      /no folder of models is named: --models-dir or the variable BASEDXL_MODELS_DIR/,
    );
    const half = join(folder, "loras/half.safetensors");
    expect(await refusal(() => resolveModelFile("lora", half, []), "bad-model")).toMatch(
      /half\.safetensors" is not there yet: .*crdownload is an unfinished download/,
    );
  });

  test("a file of a folder that is here is not asked of the hub", async () => {
    const value = "tests/support/none.safetensors";
    const options = { env: { HF_HUB_OFFLINE: "1" }, hub: {} };
    expect(await refusal(() => resolveModelPath(value, options), "bad-model")).toMatch(
      /^--model tests\/support\/none\.safetensors does not exist\. Or fetch/,
    );
    expect(await refusal(() => openModelFile("lora", value, [], {}), "bad-model")).toEndWith(
      "does not exist.",
    );
  });

  test("a folder that holds one LoRA is that LoRA", async () => {
    const saved = tree("pytorch_lora_weights.safetensors", "other.safetensors", "README.md");
    expect(resolveModelFile("lora", saved, [])).toEndWith("pytorch_lora_weights.safetensors");
    expect(resolveModelFile("vae", saved, [])).toBe(saved);
    const several = tree("a.safetensors", "b.safetensors");
    expect(await refusal(() => resolveModelFile("lora", several, []), "bad-model")).toEndWith(
      `is a folder of several files: name one of them, ${several}/a.safetensors or ` +
        `${several}/b.safetensors.`,
    );
  });

  test("--model takes them, and says what is near", async () => {
    const options = { env: { BASEDXL_MODELS_DIR: `${folder}:` } };
    const { path } = await resolveModelPath("juggernautXL_v9", options);
    expect(path).toBe(join(folder, "checkpoints/juggernautXL_v9.safetensors"));
    const message = await refusal(() => resolveModelPath("juggernaut", options), "bad-model");
    expect(message).toMatch(/^--model juggernaut is not .* Did you mean juggernautXL_v9\? Looked/);
    // The option takes the place of the variable.
    const none = { ...options, modelsDir: tree() };
    expect(await refusal(() => resolveModelPath("detail", none), "bad-model")).toMatch(/is not in/);
  });

  test("--model says what a folder is that is no model", async () => {
    const why = (path: string) => refusal(() => resolveModelPath(path, { env: {} }), "bad-model");
    expect(await why(folder)).toMatch(
      /is a folder of models, not a model: give it to --models-dir/,
    );
    expect(await why(join(folder, "checkpoints"))).toMatch(
      /is a folder of files, not a model: name one of them, such as \/.*detail\.safetensors, /,
    );
    const vae = tree("config.json", "diffusion_pytorch_model.safetensors");
    expect(await why(vae)).toMatch(
      /holds one network, not a whole model: for a VAE there is --vae/,
    );
    const empty = tree();
    expect((await resolveModelPath(empty, { env: {} })).path).toBe(empty);
  });

  test("a folder that is not there is named beside the name that is not", async () => {
    const gone = join(folder, "gone");
    expect(await refusal(() => resolveModelFile("lora", "x", [gone]), "bad-model")).toEndWith(
      `Looked in ${gone}. The folder of models ${gone} does not exist or cannot be read.`,
    );
  });

  test("words of prompts find embeddings alone", () => {
    const names = new Library([folder]).embeddingsByName();
    expect([...names.keys()]).toEqual(["sub/worst", "worst"]);
  });

  test("folders: the option, else the variable, then the hub's cache", () => {
    const hub = tree("hub/");
    const env = { BASEDXL_MODELS_DIR: "/a:/b", HF_HOME: hub };
    expect(modelFolders(undefined, env)).toEqual(["/a", "/b", join(hub, "hub")]);
    expect(modelFolders(["/c", "/d:/e"], env, { withHub: false })).toEqual(["/c", "/d", "/e"]);
    expect(modelFolders(undefined, { HF_HOME: join(hub, "none") })).toEqual([]);
  });
});
