/**
 * The table of names: for the golden model every key of its files, for SDXL the pairs that
 * everybody's files have.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { unetShapes } from "../../src/bench/support/unet-shapes.ts";
import {
  type ClipConfig,
  parseClipConfig,
  parseUnetConfig,
  parseVaeConfig,
} from "../../src/models/config.ts";
import {
  clipModuleNames,
  type ModuleName,
  openClipModuleNames,
  unetModuleNames,
  vaeModuleNames,
} from "../../src/models/names.ts";
import distilled from "../fixtures/distilled.json";

const golden = join(import.meta.dir, "../fixtures/golden");
const json = (path: string) => JSON.parse(readFileSync(join(golden, path), "utf8"));
const config = (component: string) => json(`model/${component}/config.json`);
const unet = (changes: object = {}) => parseUnetConfig("unet", { ...config("unet"), ...changes });
const vae = parseVaeConfig("vae", config("vae"));
const clip = (component: string) =>
  parseClipConfig(component, config(component), component !== "text_encoder");

/** Modules of a weights file of the golden model. */
function modulesOf(component: string): string[] {
  const { files } = json("weights.json") as { files: { path: string; tensors: object }[] };
  const file = files.find(({ path }) => path.startsWith(`${component}/`))!;
  const names = Object.keys(file.tensors).map((key) => key.replace(/\.(weight|bias)$/, ""));
  return [...new Set(names)].sort();
}

const sorted = (names: readonly ModuleName[]) => names.map(({ diffusers }) => diffusers).sort();
const withPrefix = (name: string) => (name.startsWith("text_") ? name : `text_model.${name}`);

describe("names of modules", () => {
  test("are those of the golden model's files, each once", () => {
    expect(sorted(unetModuleNames(unet()))).toEqual(modulesOf("unet"));
    expect(sorted(vaeModuleNames(vae))).toEqual(modulesOf("vae"));
    for (const component of ["text_encoder", "text_encoder_2"]) {
      const expected = modulesOf(component).map(withPrefix).sort();
      expect(sorted(openClipModuleNames(clip(component)))).toEqual(expected);
      expect(sorted(clipModuleNames(clip(component)))).toEqual(expected);
    }
  });

  test("are SDXL's where the configuration is SDXL's", () => {
    const names = unetModuleNames(
      unet({ transformer_layers_per_block: [1, 2, 10], attention_head_dim: 1 }),
    );
    const original = new Map(names.map((name) => [name.diffusers, name.original]));
    expect(new Set(original.values()).size).toBe(names.length);
    for (const [diffusers, expected] of Object.entries({
      conv_in: "input_blocks.0.0",
      "down_blocks.0.resnets.1.conv2": "input_blocks.2.0.out_layers.3",
      "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
      "down_blocks.1.resnets.0.conv_shortcut": "input_blocks.4.0.skip_connection",
      "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj":
        "input_blocks.8.1.transformer_blocks.9.ff.net.0.proj",
      "mid_block.attentions.0.proj_in": "middle_block.1.proj_in",
      "mid_block.resnets.1.time_emb_proj": "middle_block.2.emb_layers.1",
      "up_blocks.0.upsamplers.0.conv": "output_blocks.2.2.conv",
      "up_blocks.1.attentions.2.norm": "output_blocks.5.1.norm",
      "up_blocks.2.resnets.2.norm1": "output_blocks.8.0.in_layers.0",
      "add_embedding.linear_1": "label_emb.0.0",
      conv_norm_out: "out.0",
    })) {
      expect([diffusers, original.get(diffusers)]).toEqual([diffusers, expected]);
    }
  });

  test("an upsampler is its block's second module where the block has no attention", () => {
    const up_block_types = ["UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"];
    const names = unetModuleNames(unet({ up_block_types }));
    const found = names.find(({ diffusers }) => diffusers === "up_blocks.0.upsamplers.0.conv");
    expect(found?.original).toBe("output_blocks.2.1.conv");
  });

  test.each(Object.entries(distilled))("%s has a name for every module", (name, changes) => {
    const config = unet(changes);
    const names = unetModuleNames(config);
    const keys = [...unetShapes(config).keys()].map((key) => key.replace(/\.(weight|bias)$/, ""));
    expect(sorted(names)).toEqual([...new Set(keys)].sort());
    const original = new Map(names.map((each) => [each.diffusers, each.original]));
    expect(new Set(original.values()).size).toBe(names.length);
    const isKoala = name.startsWith("koala");
    expect(original.get("up_blocks.1.upsamplers.0.conv")).toBe(
      isKoala ? "output_blocks.3.2.conv" : "output_blocks.5.2.conv",
    );
    const middle = [...original.values()].filter((module) => /^middle_block\.\d/.test(module));
    const places = new Set(middle.map((module) => module.split(".")[1]));
    expect([...places]).toEqual(
      name === "koala_700m" ? [] : name === "koala_1b" ? ["0", "1", "2"] : ["0"],
    );
  });

  test("levels of the VAE's decoder are counted from the other end", () => {
    const names = vaeModuleNames(vae);
    const original = new Map(names.map((name) => [name.diffusers, name.original]));
    expect(original.get("decoder.up_blocks.1.resnets.0.conv1")).toBe("decoder.up.2.block.0.conv1");
    expect(original.get("decoder.up_blocks.2.upsamplers.0.conv")).toBe(
      "decoder.up.1.upsample.conv",
    );
    expect(original.get("encoder.mid_block.attentions.0.to_out.0")).toBe(
      "encoder.mid.attn_1.proj_out",
    );
  });

  test("a text encoder's three projections are thirds of one matrix", () => {
    const config: ClipConfig = clip("text_encoder_2");
    const names = openClipModuleNames(config);
    const thirds = names.filter(
      ({ original }) => original === "transformer.resblocks.2.attn.in_proj",
    );
    expect(thirds.map(({ part, joint }) => [part, joint])).toEqual([
      [[0, 3], "_"],
      [[1, 3], "_"],
      [[2, 3], "_"],
    ]);
    expect(names.find(({ diffusers }) => diffusers === "text_projection")).toEqual({
      diffusers: "text_projection",
      original: "text_projection",
      joint: null,
      transposed: true,
    });
  });
});
