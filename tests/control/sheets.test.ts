/**
 * --xyz and --grid: texts of axes as A1111 reads them, cells and the order of their making, what is
 * refused, and sheets pixel by pixel.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { parseSampleOptions } from "../../src/settings/options.ts";
import { drawDots, labelPainter } from "../../src/sheets/labels.ts";
import { expandRange, readAxisTexts } from "../../src/sheets/values.ts";
import {
  cellsOf,
  describeAxes,
  inRunOrder,
  parseAxes,
  reductionOf,
  Sheet,
} from "../../src/sheets.ts";
import { refusal } from "../support/refusal.ts";
import { sampled, seedName } from "../support/seed.ts";

const seedHead = "922337203685477580";
const options = parseSampleOptions({ _: ["a (red) house"], seed: "7", lora: "a:0.5\0b" });

describe("texts of axes", () => {
  test.each([
    ["1-5", true, "1 2 3 4 5"],
    ["1-10 (+3)", true, "1 4 7 10"],
    ["10-1 (-3)", true, "10 7 4 1"],
    ["1-10 [5]", true, "1 3 5 7 10"],
    ["-2-2 (+2)", true, "-2 0 2"],
    ["0.1-0.5 (+0.2)", false, "0.1 0.3 0.5"],
    ["1-2 (+0.3)", false, "1 1.3 1.6 1.9"],
    ["3-9 [3]", false, "3 6 9"],
    ["2-4", false, "2 3 4"],
    ["7", true, "7"],
    ["9223372036854775804-9223372036854775806", true, "%4 %5 %6".replaceAll("%", seedHead)],
    ["1234567890123-1234567890127 [3]", true, "1234567890123 1234567890125 1234567890127"],
    ["dpmpp-2m", false, "dpmpp-2m"],
  ])("the range %s", (text, isWhole, values) => {
    expect(expandRange(text, isWhole).join(" ")).toBe(values);
  });

  test("quotes keep commas, semicolons and quotes", () => {
    expect(readAxisTexts('sr=dog, "a cat, sitting","say ""hi"";", "";steps = 1 ,2;')).toEqual([
      { name: "sr", values: ["dog", "a cat, sitting", 'say "hi";', ""] },
      { name: "steps", values: ["1", "2"] },
    ]);
  });

  test.each([
    ["", "--xyz has no axis"],
    ["steps", '--xyz "steps" is no axis: write NAME=VALUE,VALUE, such as steps=10,20.'],
    ["steps=1,,2", '--xyz "steps" has an empty value'],
    ["steps=1;seed=1;width=64;height=64", "--xyz has 4 axes: a sheet has three at most"],
    ["steps=1;num-inference-steps=2", "--xyz has the axis num-inference-steps twice."],
    ["foobarbaz=1", '--xyz has no axis "foobarbaz". They are named as flags are: steps, guid'],
    ["stepz=1", '--xyz has no axis "stepz". Did you mean steps?'],
    ["steps=4,0", '--xyz steps must be a whole number from 1 to 1000, not "0".'],
    ["sampler=eulr", "Did you mean euler?"],
    ["size=512", '--xyz size must be WIDTHxHEIGHT, such as 1024x768, not "512".'],
    ["model=a,b", "--xyz cannot change --model from image to image."],
    ["num-images=2", "--xyz cannot change --num-images from image to image."],
    ["steps=9-1", '--xyz has the range "9-1", which is empty.'],
    ["steps=5-4 (+3)", '--xyz has the range "5-4 (+3)", which is empty.'],
    ["steps=1-5 [0]", '--xyz has the range "1-5 [0]", which is empty.'],
    ["guidance=1-3 (+0)", '--xyz has the range "1-3 (+0)", which is empty.'],
    ["size=64x64;width=96", "--xyz has the axes size and width, which set the same: keep one."],
    ["steps=1-99999", "--xyz has a range of 99999 values."],
    ['sr="a', "--xyz has a quote that does not end"],
  ])("%s is refused", async (text, sentence) => {
    expect(await refusal(() => parseAxes(text), "bad-option")).toContain(sentence);
  });

  test("values that find nothing are refused when cells are made", async () => {
    const cells = (text: string, own = options) =>
      refusal(() => cellsOf(parseAxes(text), own), "bad-option");
    expect(await cells("sr=dog,cat")).toContain('did not find "dog" in the prompt');
    expect(await cells("lora-scale=1", { ...options, loras: [] })).toContain("needs --lora");
    expect(await cells("lora-scale=x")).toBe('--xyz lora-scale must be a number, not "x".');
  });
});

describe("cells", () => {
  test("have the values of their places, x first", () => {
    const axes = parseAxes("CFG Scale=2,4;Prompt S/R=red,$&;lora-scale=0.2");
    const cells = cellsOf(axes, options);
    expect(cells.map(({ place }) => place.join(""))).toEqual(["000", "100", "010", "110"]);
    const last = cells.at(-1)!;
    expect(last.values).toEqual({ "CFG Scale": "4", "Prompt S/R": "$&", "lora-scale": "0.2" });
    const loras = [
      { file: "a", scale: 0.2 },
      { file: "b", scale: 0.2 },
    ];
    expect(last.options).toMatchObject({ guidanceScale: 4, prompt: "a ($&) house", loras });
    expect(options.loras[0]).toMatchObject({ scale: 0.5 });
    const [rescaled] = cellsOf(parseAxes("cfg-rescale=0.7;cfg=3"), options);
    expect(rescaled!.options).toMatchObject({ guidanceRescale: 0.7, guidanceScale: 3 });
    const edited = cellsOf(parseAxes("sr=red,blue;prompt=a red cat,a red dog"), options);
    expect(edited.map((cell) => cell.options.prompt).join()).toBe(
      "a red cat,a blue cat,a red dog,a blue dog",
    );
    const [scaled] = cellsOf(parseAxes("lora-scale=0.3;lora=c:0.9"), options);
    expect(scaled!.options.loras).toMatchObject([{ file: "c", scale: 0.3 }]);
    const [wide] = cellsOf(parseAxes("size=96x64"), options);
    expect(wide!.options).toMatchObject({ width: 96, height: 64 });
    expect(cellsOf(parseAxes("seed=5-6"), options).map((cell) => cell.options.seeds)).toEqual([
      [5n],
      [6n],
    ]);
    expect(describeAxes(parseAxes('sampler=euler;sigmas="5,1,0",karras'))).toBe(
      'Script: X/Y/Z plot, X Type: Sampler, X Values: "euler", Y Type: Schedule type, ' +
        'Y Values: "\\"5,1,0\\", karras"',
    );
  });

  test(`are each made once, and LoRAs change least (${seedName})`, () => {
    const counts = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 3, maxLength: 3 });
    const orders = fc.shuffledSubarray([0, 1, 2], { minLength: 3 });
    for (const [[steps, loras, widths], order] of sampled(fc.tuple(counts, orders), 50)) {
      const texts = [`steps=1-${steps}`, `lora-scale=1-${loras}`, `width=64-${63 + widths!}`];
      const axes = parseAxes(order.map((i) => texts[i]!).join(";"));
      const cells = cellsOf(axes, options);
      const made = inRunOrder(axes, cells);
      expect(new Set(made)).toEqual(new Set(cells));
      expect(made).toHaveLength(steps! * loras! * widths!);
      const scales = made.map((cell) => cell.options.loras[0]!.scale);
      const changes = scales.filter((scale, i) => i > 0 && scale !== scales[i - 1]).length;
      expect(changes).toBe(loras! - 1);
    }
  });
});

describe("a sheet", () => {
  const plan = { columns: ["a", "b"], rows: ["c"], blocks: [""], sideMax: 1e9 };

  /** Of one colour that no label has. */
  function image(width: number, height: number, red: number) {
    const pixels = new Uint8Array(width * height * 3).fill(3);
    for (let i = 0; i < pixels.length; i += 3) pixels[i] = red;
    return { width, height, pixels };
  }

  /** How many pixels have this red of an image, or as grey this level. */
  function count({ pixels }: Sheet, level: number, other = 3): number {
    let found = 0;
    for (let i = 0; i < pixels.length; i += 3) {
      if (pixels[i] === level && pixels[i + 1] === other && pixels[i + 2] === other) found += 1;
    }
    return found;
  }

  const empty = (sheet: Sheet) => count(sheet, 232, 232);

  test("has every image whole, a smaller one in the middle, and grey where none came", async () => {
    const sheet = await Sheet.create({ ...plan, cellWidth: 64, cellHeight: 40 });
    expect(empty(sheet)).toBe(2 * 64 * 40);
    sheet.place([1, 0, 0], image(64, 40, 101));
    sheet.place([0, 0, 0], image(32, 20, 77));
    expect(count(sheet, 101)).toBe(64 * 40);
    expect(count(sheet, 77)).toBe(32 * 20);
    expect(empty(sheet)).toBe(64 * 40 - 32 * 20);
    const first = Buffer.from(sheet.pixels).indexOf(Buffer.from([77, 3, 3])) / 3;
    const corner = Buffer.from(sheet.pixels).indexOf(Buffer.from([232, 232, 232])) / 3;
    expect(first - corner).toBe(10 * sheet.width + 16);
  });

  test("that would be too large has its images reduced by means", async () => {
    const large = { ...plan, cellWidth: 64, cellHeight: 64, sideMax: 80 };
    expect(reductionOf(large)).toBe(2);
    expect(reductionOf({ ...large, sideMax: 1e9 })).toBe(1);
    const many = Array<string>(40).fill("");
    const huge = { ...plan, columns: many, rows: many, cellWidth: 1024, cellHeight: 1024 };
    expect(reductionOf(huge)).toBe(5);
    const labelled = { ...large, blocks: ["x ".repeat(50), "y", "z"], sideMax: 300 };
    expect(reductionOf(labelled)).toBe(1);
    const { width, height } = await Sheet.create(labelled);
    expect(Math.max(width, height)).toBeLessThanOrEqual(300);
    const sheet = await Sheet.create({ ...large, columns: ["", ""], rows: [""], sideMax: 90 });
    const checks = image(64, 64, 10);
    for (let i = 0; i < checks.pixels.length; i += 6) checks.pixels[i] = 50;
    sheet.place([0, 0, 0], checks);
    expect(count(sheet, 30)).toBe(32 * 32);
  });

  test("has blocks side by side where that is nearer to a square", async () => {
    const shape = { blocks: ["y", "z"], cellWidth: 32, cellHeight: 32, sideMax: 1e9 };
    const tall = await Sheet.create({ columns: ["a"], rows: ["b", "c"], ...shape });
    const wide = await Sheet.create({ columns: ["a", "b"], rows: ["c"], ...shape });
    for (const sheet of [tall, wide]) {
      for (const z of [0, 1]) sheet.place([0, 0, z], image(32, 32, 60 + z));
      expect([count(sheet, 60), count(sheet, 61)]).toEqual([32 * 32, 32 * 32]);
    }
    expect(tall.width).toBeGreaterThan(2 * 32 + 8);
    expect(wide.height).toBeGreaterThan(2 * 32 + 8);
  });
});

describe("labels", () => {
  test("of this machine, and of dots, fit and have ink", async () => {
    const draws = [
      await labelPainter(),
      async (...args: Parameters<typeof drawDots>) => drawDots(...args),
    ];
    for (const draw of draws) {
      for (const text of [
        "steps: 20",
        "a <b> & c ".repeat(9),
        "\u96ea \u{1f98a}",
        "x".repeat(99),
      ]) {
        const { width, height, ink } = await draw(text, 14, 90, 60);
        expect(width).toBeLessThanOrEqual(90);
        expect(height).toBeLessThanOrEqual(60);
        expect(ink).toHaveLength(width * height);
        expect(Math.max(...ink)).toBeGreaterThan(100);
      }
    }
  });

  test("of dots differ from letter to letter", () => {
    const letters = Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i));
    const drawn = letters.map((letter) => drawDots(letter, 12, 20, 20).ink.join(""));
    expect(new Set(drawn).size).toBe(95);
  });
});
