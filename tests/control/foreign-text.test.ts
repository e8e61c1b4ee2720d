/**
 * Foreign text (model files, folder names, prompts) is escaped and cut before it reaches a
 * terminal: where a message is built, and again where it is printed.
 */
import { afterAll, describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { renderReport } from "../../src/doctor/render.ts";
import { ok, problem } from "../../src/doctor/report.ts";
import { BasedXLError, escaped, escapedLines } from "../../src/errors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { findWeightFiles } from "../../src/models/weight-files.ts";
import { createOutput, reportError, writeJson } from "../../src/terminal/output.ts";
import { linkedModel } from "../support/linked-model.ts";

const root = mkdtempSync(join(tmpdir(), "basedxl-foreign-"));
// Removing some hundred files takes seconds on a busy disk.
setDefaultTimeout(60_000);
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Everything that a terminal obeys or that reorders a line; a line break of ours is allowed. */
const obeyed = /[\p{Cc}\p{Cs}\u2028-\u202e\u2066-\u2069]/u;
const hostile =
  "\x1b]0;owned\x07 \x7f \u009b31m \u202egnp.exe\u202c \u2066\u2069 \u2028\u2029 \r\n";

/** The lines that `use` prints to a terminal. */
function printed(use: (output: ReturnType<typeof createOutput>) => void): string[] {
  let text = "";
  const target = {
    isTerminal: false,
    columns: () => 80,
    write(part: string) {
      text += part;
    },
  };
  use(createOutput({ verbose: true, quiet: false, json: false }, target));
  expect(text).toEndWith("\n");
  return text.slice(0, -1).split("\n");
}

describe("escaping", () => {
  test("leaves nothing that a terminal obeys, and plain text as it is", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(0xffff), { maxLength: 50 }), (units) => {
        const text = String.fromCharCode(...units);
        expect(escaped(text)).not.toMatch(obeyed);
        expect(escaped(text, 10)).not.toMatch(obeyed);
        expect(escaped(text, 10).length).toBeLessThanOrEqual(6 * 10 + 4);
      }),
    );
    expect(escaped("Ein Bär 🐻‍❄️, 日本語, עברית")).toBe("Ein Bär 🐻‍❄️, 日本語, עברית");
    expect(escaped("\x1b[2J\u009b")).toBe("\\u001b[2J\\u009b");
    expect(escapedLines("a\x1b\nb\r")).toBe("a\\u001b\nb\\u000d");
  });
});

describe("what is printed", () => {
  test("messages of every level are one line each", () => {
    const lines = printed(({ log }) => {
      for (const type of ["info", "debug", "warn", "error"] as const) log[type](`name ${hostile}`);
    });
    expect(lines).toHaveLength(4);
    for (const line of lines) expect(line).not.toMatch(obeyed);
  });

  test("errors: the user's in one line, the output of a tool and a stack with their lines", () => {
    const lines = printed((output) => reportError(new BasedXLError("io", hostile), output));
    expect(lines).toHaveLength(1);
    expect(lines[0]).not.toMatch(obeyed);
    const tool = new BasedXLError("setup", "It failed:\nline 2\x1b");
    expect(printed((output) => reportError(tool, output))).toEqual([
      "error: It failed:",
      "line 2\\u001b",
    ]);
    const stack = printed((output) => reportError(new Error(hostile), output));
    expect(stack.length).toBeGreaterThan(2);
    for (const line of stack) expect(line).not.toMatch(obeyed);
  });

  test("objects for scripts mean the same", () => {
    const write = spyOn(process.stdout, "write").mockImplementation(() => true);
    writeJson({ [hostile]: hostile });
    const text = String(write.mock.calls[0]?.[0]);
    write.mockRestore();
    expect(text.slice(0, -1)).not.toMatch(obeyed);
    expect(JSON.parse(text)).toEqual({ [hostile]: hostile });
  });

  test("lines of doctor", () => {
    const lines = [ok(hostile, hostile), problem(hostile, { what: hostile, advice: hostile })];
    const text = renderReport({ models: { title: "Models", lines, facts: {} } }, false);
    for (const line of text.split("\n")) expect(line).not.toMatch(obeyed);
  });
});

describe("messages about a model's files are escaped and bounded", () => {
  const long = "x".repeat(30_000);
  const words = [hostile, long, hostile.repeat(2000)];
  const places: [string, (word: string) => Record<string, unknown>][] = [
    ["model_index.json", (word) => ({ _class_name: word })],
    ["text_encoder/config.json", (word) => ({ architectures: [word] })],
    ["text_encoder/config.json", (word) => ({ hidden_act: word })],
    ["text_encoder/config.json", (word) => ({ text_config: word })],
    ["unet/config.json", (word) => ({ down_block_types: [word] })],
    ["unet/config.json", (word) => ({ mid_block_type: word })],
    ["unet/config.json", (word) => ({ transformer_layers_per_block: [[word], 1, 2] })],
    ["unet/config.json", (word) => ({ reverse_transformer_layers_per_block: word })],
    ["unet/config.json", (word) => ({ block_out_channels: { [word]: word } })],
    ["vae/config.json", (word) => ({ up_block_types: [word] })],
    ["vae/config.json", (word) => ({ scaling_factor: word })],
    ["scheduler/scheduler_config.json", (word) => ({ beta_schedule: word })],
    ["scheduler/scheduler_config.json", (word) => ({ interpolation_type: [word] })],
    ["basedxl.json", (word) => ({ [word]: 1 })],
    ["tokenizer/special_tokens_map.json", (word) => ({ bos_token: word })],
    ["tokenizer/tokenizer_config.json", (word) => ({ added_tokens_decoder: { [word]: "x" } })],
    ["tokenizer/tokenizer_config.json", (word) => ({ model_max_length: word })],
    ["tokenizer/vocab.json", (word) => ({ [word]: word })],
  ];
  test.each(places)("%s %p", async (file, change) => {
    const folder = linkedModel(root);
    const path = join(folder, file);
    const before = file === "basedxl.json" ? {} : JSON.parse(readFileSync(path, "utf8"));
    for (const word of words) {
      writeFileSync(path, JSON.stringify({ ...before, ...change(word) }));
      const error = await openModelFolder(folder).then(
        () => null,
        (thrown: Error) => thrown,
      );
      expect(error).toBeInstanceOf(BasedXLError);
      expect(error?.message).not.toMatch(obeyed);
      expect(error?.message.length).toBeLessThan(1000);
    }
  });

  test("names of shards and of pickles", async () => {
    for (const word of [hostile, "x".repeat(200)]) {
      const folder = mkdtempSync(join(root, "weights-"));
      const index = { weight_map: { a: `${word}.safetensors` } };
      writeFileSync(join(folder, "model.safetensors.index.json"), JSON.stringify(index));
      const shard = await findWeightFiles(folder, "model").catch((thrown: Error) => thrown.message);
      expect(shard).toMatch(/the shard /);
      expect(shard).not.toMatch(obeyed);
      rmSync(join(folder, "model.safetensors.index.json"));
      writeFileSync(join(folder, `${word.replaceAll("/", "")}.bin`), "");
      const pickle = await findWeightFiles(folder, "model").catch(
        (thrown: Error) => thrown.message,
      );
      expect(pickle).toMatch(/pickled/);
      expect(pickle).not.toMatch(obeyed);
      expect(`${shard}${pickle}`.length).toBeLessThan(1000);
    }
  });
});
