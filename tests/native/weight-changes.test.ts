/**
 * Weight files with unused tensors, and files that change while they are mapped: the first generate
 * the same image with a warning, the second end with an error that names the file. A
 * crash of the library would end this process, and with it the tests.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, renameSync, truncateSync, writeSync } from "node:fs";
import { join } from "node:path";
import { BasedXLError } from "../../src/errors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import type { ImageHooks, Session } from "../../src/pipeline/session.ts";
import { requestOf, type Work, withSession } from "../support/draw.ts";
import { copyModel, copyModelBytes, removeCopies, type Tensors } from "../support/model-copy.ts";

afterAll(removeCopies);

const unet = "unet/diffusion_pytorch_model.safetensors";
const textEncoder2 = "text_encoder_2/model.safetensors";
const size = { width: 64, height: 96 };

interface Options {
  rankCount?: number;
  threadCount?: number;
  warnings?: string[];
}

/** Opens the folder's model and runs `use`; all images are the same but for their steps. */
async function withModel<T>(
  folder: string,
  { rankCount = 1, threadCount = 2, warnings }: Options,
  use: (draw: (steps: number, hooks?: ImageHooks) => ReturnType<Session["image"]>) => Promise<T>,
): Promise<T> {
  const model = await openModelFolder(folder);
  const onWarning = (warning: string) => void warnings?.push(warning);
  const work: Work = { model, ...size, rankCount, threadCount, guidanceScale: 1, onWarning };
  return await withSession(work, (session) =>
    use((stepCount, hooks) => session.image(requestOf({ ...work, stepCount }), hooks)),
  );
}

async function failure(work: Promise<unknown>): Promise<BasedXLError> {
  const error = await work.then(() => null).catch((reason) => reason);
  expect(error).toBeInstanceOf(BasedXLError);
  return error as BasedXLError;
}

describe("tensors that no layer reads", () => {
  const extra = { dtype: "F16", shape: [2], bytes: new Uint8Array(4) };

  async function drawn(file: string, change: (tensors: Tensors) => void) {
    const warnings: string[] = [];
    const image = await withModel(copyModel(file, change), { warnings }, (draw) => draw(1));
    return { latents: image.latents, warnings };
  }

  test("are listed in a warning that is bounded, and change no bit", async () => {
    const plain = await drawn(unet, () => {});
    expect(plain.warnings).toEqual([]);
    const one = await drawn(textEncoder2, (t) => t.set("logit_scale", { ...extra, shape: [2] }));
    expect(one.warnings).toHaveLength(1);
    expect(one.warnings[0]).toMatch(/text_encoder_2.*holds 1 tensor\(s\).*ignored: logit_scale\.$/);
    const many = await drawn(unet, (tensors) => {
      for (let i = 0; i < 1000; i++) tensors.set(`${i}\u001b${"x".repeat(5000)}`, extra);
      // Types that no layer could read either.
      tensors.set("0", { dtype: "F4_NEW", shape: [3], bytes: new Uint8Array(3) });
    });
    expect(many.warnings).toHaveLength(1);
    expect(many.warnings[0]).toContain("holds 1001 tensor(s)");
    expect(many.warnings[0]).toContain("ignored: 0, 0\\u001bxxx");
    expect(many.warnings[0]).toMatch(/^[^\p{Cc}]{0,1000} and 996 more\.$/u);
    for (const { latents } of [one, many]) expect(latents).toEqual(plain.latents);
  });

  test("do not hide that others are missing", async () => {
    const folder = copyModel(unet, (tensors) => {
      tensors.set("conv_out.weight_renamed", tensors.get("conv_out.weight")!);
      tensors.delete("conv_out.weight");
    });
    const error = await failure(withModel(folder, {}, (draw) => draw(1)));
    expect(error.message).toContain("tensor conv_out.weight is missing from");
  });
});

describe("files that change while they are mapped", () => {
  const unchanged = () => copyModelBytes(unet, (bytes) => bytes);
  const sentence = "was changed, cut short or lost while it was in use, so no image was written";

  function overwrite(path: string, change: (bytes: Buffer) => void): void {
    const bytes = readFileSync(path);
    change(bytes);
    const file = openSync(path, "r+");
    writeSync(file, bytes, 0, bytes.length, 0);
    closeSync(file);
  }

  test.each([
    { threadCount: 1, rankCount: 1 },
    { threadCount: 2, rankCount: 2 },
    // Ranks that share cores: fibers, with small stacks of their own.
    { threadCount: 1, rankCount: 3 },
  ])("a file cut short ends the job early, and the next: %p", async (options) => {
    const folder = unchanged();
    const path = join(folder, unet);
    await withModel(folder, options, async (draw) => {
      let last = 0;
      const hooks: ImageHooks = {
        onProgress: ({ stage, stepIndex }) => {
          if (stage === "denoise" && stepIndex > 0 && last === 0) truncateSync(path, 1000);
          last = stepIndex;
        },
      };
      const first = await failure(draw(900, hooks));
      expect(first.code).toBe("bad-weights");
      expect(first.message).toContain(`${path} ${sentence}`);
      expect(last).toBeLessThan(890);
      expect(first.sessionLost).toBe(true);
      expect((await failure(draw(1))).message).toContain("weights were changed or lost");
    });
    // Another model of the same process is not concerned.
    await withModel(unchanged(), options, (draw) => draw(1));
  });

  test("a file overwritten in place is refused, whatever its bytes are", async () => {
    const folder = unchanged();
    const path = join(folder, unet);
    await withModel(folder, {}, async (draw) => {
      await draw(1);
      overwrite(path, (bytes) => bytes.fill(0x11, bytes.length - 1000));
      const error = await failure(draw(1));
      expect(error.code).toBe("bad-weights");
      expect(error.message).toContain(`${path} ${sentence}`);
    });
  });

  test("another file moved to its place changes nothing", async () => {
    const folder = unchanged();
    const path = join(folder, unet);
    const other = join(
      copyModelBytes(unet, (bytes) => bytes.fill(0, 100_000)),
      unet,
    );
    await withModel(folder, {}, async (draw) => {
      const before = await draw(1);
      renameSync(other, path);
      expect((await draw(1)).latents).toEqual(before.latents);
    });
  });
});
