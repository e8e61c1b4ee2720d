/**
 * Errors of the benches' flags, and rendering of their charts.
 */
import { describe, expect, test } from "bun:test";
import { runBench } from "../../src/bench/benches.ts";
import { run as runCpu } from "../../src/bench/cpu.ts";
import { run as runCpuBusy } from "../../src/bench/cpu-busy.ts";
import { fitSizes } from "../../src/bench/cpu-models.ts";
import { median } from "../../src/bench/cpu-ops.ts";
import {
  readFlags,
  seedsOf,
  sharedFlags,
  sizeOf,
  wholeOf,
  wholesOf,
} from "../../src/bench/flags.ts";
import { sdxl } from "../../src/bench/formula.ts";
import { formulaChart, formulaRows } from "../../src/bench/formula-table.ts";
import { run as runPrediction } from "../../src/bench/prediction.ts";
import { run as runQuality } from "../../src/bench/quality.ts";
import { renderChart, renderTable } from "../../src/bench/report.ts";
import { run as runScaling } from "../../src/bench/scaling.ts";
import { run as runSignals } from "../../src/bench/signals.ts";

describe("flags", () => {
  const definition = {
    ...sharedFlags,
    ranks: { type: "string" },
    seeds: { type: "string" },
  } as const;
  const read = (...args: string[]) => readFlags(args, definition);

  test("lists are read once each", () => {
    expect(wholesOf(read("--ranks", "2, 4,2"), "ranks", { min: 2, max: 16 })).toEqual([2, 4]);
    expect(seedsOf(read("--seeds=7"), "seeds")).toEqual([7n]);
    expect(wholesOf(read(), "ranks", { min: 2, max: 16 })).toBeUndefined();
    expect(sizeOf(read("--size", "96x64"), 32)).toEqual({ width: 96, height: 64 });
  });

  test("invalid values are refused with one sentence that names the valid ones", () => {
    const ranks = { min: 2, max: 16 };
    expect(() => wholesOf(read("--ranks", "2,17"), "ranks", ranks)).toThrow(
      '--ranks takes whole numbers from 2 to 16, not "17".',
    );
    expect(() => wholesOf(read("--ranks", "2,,4"), "ranks", ranks)).toThrow("empty entry");
    expect(() => wholeOf(read("--steps", "x"), "steps", ranks)).toThrow('not "x"');
    expect(() => seedsOf(read("--seeds", "-1"), "seeds")).toThrow("--seeds takes whole numbers");
    expect(() => sizeOf(read("--size", "100x64"), 32)).toThrow("multiples of 32");
    expect(() => read("house")).toThrow('"house" is not a flag');
    expect(() => read("--rank", "2")).toThrow("--ranks");
  });

  test.each([
    [runQuality, ["--modes", "stale"], "Did you mean stale_gn?"],
    [runQuality, ["--ranks", "8", "--size", "128x128"], "use 4 ranks"],
    [runQuality, ["--steps", "3", "--warmup-steps", "4"], "from 0 to 3"],
    [runQuality, ["--prompts", "no-such-file"], "--prompts no-such-file cannot be read"],
    [runCpuBusy, ["--ranks", "1"], "from 2 to 16"],
    [runCpu, ["--only", "models"], "need --model FOLDER"],
    [runCpu, ["--only", "sdcpp", "--model", "none"], "--only sdcpp needs --sd-cli PATH"],
    [
      runCpu,
      ["--only", "sdcpp", "--model", "none", "--sd-cli", "no-such"],
      "--sd-cli no-such is not an executable program",
    ],
    [runCpu, ["--dtypes", "f16"], "--dtypes takes f32, bf16"],
    [runCpu, ["--pairs", "0"], "--pairs takes whole numbers from 1"],
    [runScaling, ["--steps", "2"], "--steps must be above 2"],
    [runScaling, ["--size", "128x32"], "rows for one patch only"],
    [runScaling, ["--model", "no-such-folder"], "no-such-folder"],
    [runSignals, ["--ranks", "2"], "bench signals takes no flags, not --ranks 2"],
    [runPrediction, ["--fast"], "bench prediction takes no flags, not --fast"],
  ])("%p %j", async (run, args, sentence) => {
    await expect(run([...args])).rejects.toThrow(sentence);
  });

  test("a former name of a bench is an alias", async () => {
    await expect(runBench(["posts", "--ranks"])).rejects.toThrow("bench signals takes no flags");
  });
});

test("the fit of cost against size finds the polynomial that times were made of", () => {
  const rows = [256, 512, 1024, 2048].map((side) => {
    const n = side ** 2 / 1e6;
    return { side, milliseconds: 300 + 9000 * n + 1200 * n ** 2 };
  });
  const [a, b, c] = fitSizes(rows);
  expect(a).toBeCloseTo(300, 3);
  expect(b).toBeCloseTo(9000, 3);
  expect(c).toBeCloseTo(1200, 3);
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 2, 3])).toBe(2.5);
});

test("tables have words to the left and numbers to the right", () => {
  expect(renderTable(["mode", "ms"], [["full_sync", "12.5"]])).toBe(
    ["| mode      |   ms |", "|-----------|-----:|", "| full_sync | 12.5 |", ""].join("\n"),
  );
});

test("a chart is rendered without a browser", async () => {
  const size = { width: 1024, height: 1024 };
  const options = { unet: sdxl, vaeFactor: 8, sizes: [size], rankCounts: [2], guidance: true };
  const svg = await renderChart(formulaChart(formulaRows(options)));
  expect(svg).toStartWith("<svg");
  expect(svg).toContain("2 patches");
});
