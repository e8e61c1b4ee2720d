/**
 * Progress: the pure formatters, and both views against a clock that the test moves.
 */
import { describe, expect, test } from "bun:test";
import type { DownloadProgress } from "../../src/hub/progress.ts";
import type { Progress } from "../../src/pipeline/progress.ts";
import { downloadBars } from "../../src/terminal/download-lines.ts";
import {
  createProgressView,
  formatBar,
  formatPlain,
  type ShownProgress,
  type StageTimes,
} from "../../src/terminal/progress.ts";
import { formatSeconds } from "../../src/terminal/units.ts";

function at(stage: Progress["stage"], stepIndex = 0, loadFraction = 1): Progress {
  return { stage, stepIndex, stepCount: 20, loadFraction, adaptFraction: 0.25 };
}

/** The same within a run of several images. */
function ofFour(progress: Progress, first: number, last = first): ShownProgress {
  return { ...progress, images: { first, last, count: 4 } };
}

const times: StageTimes = {
  stage: "denoise",
  imageFirst: 1,
  stageStartMs: 1000,
  lastStepMs: 6000,
  stepsDone: 10,
};

describe("formatSeconds", () => {
  test.each([
    [0, "0.000 s"],
    [0.0124, "0.012 s"],
    [0.0999, "0.10 s"],
    [0.31, "0.31 s"],
    [0.997, "1.0 s"],
    [4.24, "4.2 s"],
    [9.97, "10 s"],
    [59.4, "59 s"],
    [59.6, "1 min 00 s"],
    [200, "3 min 20 s"],
    [7500, "2 h 05 min"],
  ])("%p is %p", (seconds, text) => {
    expect(formatSeconds(seconds)).toBe(text);
  });
});

describe("formatBar", () => {
  test("shows steps, seconds per step and time left", () => {
    expect(formatBar(at("denoise", 10), times, 6000, 79)).toBe(
      `Denoising ${"█".repeat(15)}${"░".repeat(15)}  10/20  0.50 s per step  5.0 s left`,
    );
  });

  test("time left runs down within a step, never below zero", () => {
    expect(formatBar(at("denoise", 10), times, 8000, 79)).toEndWith("3.0 s left");
    expect(formatBar(at("denoise", 10), times, 60_000, 79)).toEndWith("0.000 s left");
  });

  test("before the first step only the count is shown", () => {
    const start = { ...times, lastStepMs: 1000, stepsDone: 0 };
    expect(formatBar(at("denoise", 0), start, 1500, 79)).toEndWith("  0/20");
  });

  test("after the last step nothing is left", () => {
    expect(formatBar(at("denoise", 20), { ...times, stepsDone: 20 }, 6000, 79)).toEndWith(
      "per step",
    );
  });

  test("the other stages have their own words", () => {
    const began = (stage: Progress["stage"]) => ({ ...times, stage, stageStartMs: 0 });
    const half = `Loading the model ${"█".repeat(15)}${"░".repeat(15)}  50 %`;
    expect(formatBar(at("load", 0, 0.5), began("load"), 900, 79)).toBe(half);
    expect(formatBar(at("load", 0, 0.5), began("load"), 4200, 79)).toBe(`${half}  4.2 s`);
    expect(formatBar(at("adapt"), began("adapt"), 0, 79)).toMatch(/^Applying LoRAs █+░+ {2}25 %$/);
    expect(formatBar(at("text"), began("text"), 0, 79)).toBe("Encoding the prompt");
    expect(formatBar(at("decode", 20), began("decode"), 0, 79)).toBe("Decoding");
  });

  test("includes the image number where there are several", () => {
    const half = "█".repeat(10) + "░".repeat(10);
    expect(formatBar(ofFour(at("denoise", 10), 2), times, 6000, 79)).toBe(
      `Denoising image 2 of 4 ${half}  10/20  0.50 s per step  5.0 s left`,
    );
    expect(formatBar(ofFour(at("decode", 20), 3, 4), times, 1000, 79)).toStartWith(
      "Decoding images 3 to 4 of 4",
    );
    expect(formatBar(ofFour(at("text"), 2), times, 1000, 79)).toBe("Encoding the prompt");
    expect(formatBar(ofFour(at("load"), 1), times, 1000, 79)).not.toContain("image");
    const single = { ...at("decode"), images: { first: 1, last: 1, count: 1 } };
    expect(formatBar(single, times, 1000, 79)).toBe("Decoding");
  });

  test("never grows wider than the terminal", () => {
    for (let columns = 1; columns < 100; columns++) {
      for (const progress of [
        at("load"),
        at("adapt"),
        at("text"),
        at("denoise", 10),
        at("decode"),
      ]) {
        expect(formatBar(progress, times, 6000, columns).length).toBeLessThanOrEqual(columns);
      }
    }
  });
});

test("formatPlain shows the same without a bar", () => {
  expect(formatPlain(at("denoise", 10), times, 6000)).toBe(
    "Step 10/20, 0.50 s per step, 5.0 s left",
  );
  expect(formatPlain(ofFour(at("denoise", 10), 2), times, 6000)).toBe(
    "Step 10/20 of image 2 of 4, 0.50 s per step, 5.0 s left",
  );
  expect(formatPlain(at("load", 0, 0.42), { ...times, stage: "load" }, 4000)).toBe(
    "Loading the model, 42 %, 3.0 s",
  );
});

function viewWithClock(isTerminal: boolean) {
  const written: string[] = [];
  const clock = { ms: 0 };
  const target = {
    write: (text: string) => void written.push(text),
    isTerminal,
    columns: () => 80,
  };
  return { written, clock, view: createProgressView(target, () => clock.ms) };
}

describe("on a terminal", () => {
  test("the bar is redrawn in place and removed at the end", () => {
    const { written, clock, view } = viewWithClock(true);
    view.update(at("denoise", 0));
    clock.ms = 500;
    view.update(at("denoise", 1));
    view.clear();
    expect(written.every((text) => text.startsWith("\r\x1b[K") && !text.includes("\n"))).toBe(true);
    expect(written[1]).toContain("1/20  0.50 s per step  9.5 s left");
    expect(written.at(-1)).toBe("\r\x1b[K");
    view.clear();
    expect(written).toHaveLength(3);
  });

  test("polls without news do not redraw it more than ten times a second", () => {
    const { written, clock, view } = viewWithClock(true);
    for (; clock.ms < 1000; clock.ms += 10) view.update(at("load", 0, clock.ms / 1000));
    expect(written.length).toBeLessThanOrEqual(10);
    expect(written.length).toBeGreaterThanOrEqual(5);
  });

  test("a line goes above the bar, which is redrawn below it", () => {
    const { written, view } = viewWithClock(true);
    view.update(at("text"));
    view.line("warning: something");
    expect(written.slice(1)).toEqual(["\r\x1b[K", "warning: something\nEncoding the prompt"]);
  });
});

describe("a download", () => {
  const state = (done: number[]): DownloadProgress => {
    const files = done.map((doneBytes, index) => {
      return { name: `unet/file-${index}.safetensors`, bytes: 4e9, doneBytes };
    });
    const doneBytes = done.reduce((sum, each) => sum + each, 0);
    return { what: "a/b", files, bytes: 4e9 * done.length, doneBytes, fetchedBytes: doneBytes };
  };

  test("has a bar for each file that is arriving, and a line for all", () => {
    const [first, second, all, ...more] = downloadBars(state([1e9, 2e9, 4e9, 0]), 5e7, 79);
    expect(first).toBe(
      `unet/file-0.safetensors ${"█".repeat(5)}${"░".repeat(15)}   25 %  1.00 of 4.00 GB`,
    );
    expect(second).toContain(" 50 %  2.00 of 4.00 GB");
    expect(all).toBe("1 of 4 files  7.00 of 16.0 GB  50.0 MB/s  3 min 00 s left");
    expect(more).toEqual([]);
    const name = "unet/diffusion_pytorch_model.fp16.safetensors";
    const [long] = downloadBars(
      { ...state([5]), files: [{ name, bytes: 9, doneBytes: 5 }] },
      null,
      79,
    );
    expect(long).toStartWith("unet/diffus…_model.fp16.safetensors █");
  });

  test("never grows wider than the terminal", () => {
    for (let columns = 1; columns < 120; columns++) {
      for (const line of downloadBars(state([1e9, 3.999e9]), 5e7, columns)) {
        expect([...line].length).toBeLessThanOrEqual(columns);
      }
    }
  });

  test("is redrawn in place, all lines of it, and removed", () => {
    const { written, clock, view } = viewWithClock(true);
    view.download(state([1e9, 1e9]));
    clock.ms += 200;
    view.download(state([2e9, 1e9]));
    expect(written.at(-1)).toStartWith("\r\x1b[2A\x1b[J");
    expect(written.at(-1)?.split("\n")).toHaveLength(3);
    view.line("hello");
    expect(written.at(-1)).toStartWith("hello\n");
    view.clear();
    expect(written.at(-1)).toBe("\r\x1b[2A\x1b[J");
  });

  test("piped is one line per tenth or second, with the rate and the time that is left", () => {
    const { written, clock, view } = viewWithClock(false);
    for (let percent = 1; percent <= 100; percent++) {
      clock.ms += 100;
      view.download(state([4e7 * percent]));
    }
    for (let percent = 1; percent <= 100; percent++) view.download(state([4e7 * percent]));
    expect(written).toHaveLength(10);
    expect(written[4]).toBe("Fetched 2.00 of 4.00 GB (50 %), 400 MB/s, 5.0 s left\n");
  });

  test("names of files cannot move the cursor", () => {
    const { written, view } = viewWithClock(true);
    const file = { name: "a\u202eb", bytes: 10, doneBytes: 5 };
    const [first] = state([5]).files;
    view.download({ ...state([5]), files: [{ ...first, ...file }] });
    expect(written.join("")).toContain("a\\u202eb");
  });
});

describe("piped", () => {
  test("one line per tenth of the steps", () => {
    const { written, clock, view } = viewWithClock(false);
    for (let step = 0; step <= 20; step++, clock.ms += 100) {
      view.update(at("denoise", step));
      view.update(at("denoise", step));
    }
    expect(written).toHaveLength(10);
    expect(written[0]).toBe("Step 2/20, 0.10 s per step, 1.8 s left\n");
    expect(written.at(-1)).toBe("Step 20/20, 0.10 s per step\n");
  });

  test("the last step is shown, also when polling saw decoding next", () => {
    const { written, clock, view } = viewWithClock(false);
    view.update(at("denoise", 0));
    clock.ms = 2000;
    view.update(at("decode", 20));
    view.update(at("decode", 20));
    expect(written).toEqual(["Step 20/20, 0.10 s per step\n"]);
  });

  test("tenths and times begin anew with each image, whatever polling missed", () => {
    const { written, clock, view } = viewWithClock(false);
    for (const first of [1, 2]) {
      for (const step of [0, 10, 20]) {
        view.update(ofFour(at("denoise", step), first));
        clock.ms += 1000;
      }
    }
    expect(written).toEqual([
      "Step 10/20 of image 1 of 4, 0.10 s per step, 1.0 s left\n",
      "Step 20/20 of image 1 of 4, 0.10 s per step\n",
      "Step 10/20 of image 2 of 4, 0.10 s per step, 1.0 s left\n",
      "Step 20/20 of image 2 of 4, 0.10 s per step\n",
    ]);
  });

  test("and one every ten seconds when steps are slow or the model is large", () => {
    const { written, clock, view } = viewWithClock(false);
    for (; clock.ms <= 25_000; clock.ms += 1000) {
      view.update(at("load", 0, clock.ms / 100_000));
    }
    expect(written).toEqual(["Loading the model, 10 %, 10 s\n", "Loading the model, 20 %, 20 s\n"]);
  });

  test("no control characters, and clear writes nothing", () => {
    const { written, view } = viewWithClock(false);
    view.line("a line");
    view.clear();
    expect(written).toEqual(["a line\n"]);
  });
});
