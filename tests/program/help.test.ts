/**
 * The help texts: complete, and readable on a terminal of 80 columns.
 */
import { expect, test } from "bun:test";
import { commands } from "../../src/commands.ts";
import { syncModeTexts } from "../../src/settings/names.ts";
import { sampleFlags, sampleHelp } from "../../src/settings/sample-flags.ts";
import { settingKeys, settingOf } from "../../src/settings/table.ts";
import { renderHelp, wrap } from "../../src/terminal/help.ts";

const text = renderHelp(sampleHelp, sampleFlags);

test("every flag is in one group, and shown", () => {
  const grouped = sampleHelp.groups.flatMap(([, flags]) => flags);
  expect([...grouped].sort()).toEqual(Object.keys(sampleFlags).sort());
  const negated = ["split-batch", "fresh-deep", "cuda-graphs", "metadata", "cells"];
  for (const flag of grouped.filter((name) => !["promptText", ...negated].includes(name))) {
    expect(text).toContain(`  --${flag}`);
  }
  for (const flag of negated) expect(text).toContain(`  --no-${flag}  `);
  expect(text).toContain("--num-inference-steps, --steps N");
});

test.each(Object.keys(commands))("%s: examples first, all within 80 columns", async (name) => {
  const help = (await commands[name]?.helpText()) ?? "";
  expect(help).toStartWith(`Usage: basedxl ${name}`);
  expect(help.indexOf("\nExamples:\n")).toBeGreaterThan(0);
  const flagAt = help.search(/^ {2}(--|\[)/m);
  if (flagAt >= 0) expect(help.indexOf("\nExamples:\n")).toBeLessThan(flagAt);
  expect(help.split("\n").filter((line) => line.length > 80)).toEqual([]);
  for (const flag of Object.keys(commands[name]?.args ?? {})) {
    if (commands[name]?.args[flag]?.type === "string") expect(help).toContain(`--${flag}`);
  }
});

test("no line is over 80 columns, and examples come before flags", () => {
  expect(text.split("\n").filter((line) => line.length > 80)).toEqual([]);
  expect(text.indexOf("Examples:")).toBeLessThan(text.indexOf("--prompt TEXT"));
  expect(text).toEndWith("terminated.\n");
});

test("every flag with a value states its default; numbers state their range", () => {
  for (const [name, flag] of Object.entries(sampleFlags)) {
    if (flag.type !== "string" || name === "height") continue;
    expect(flag.description).toContain("Default:");
  }
  for (const setting of settingKeys.map(settingOf)) {
    if (!("min" in setting)) continue;
    const { description } = sampleFlags[setting.flag] ?? {};
    const says = ["width", "height", "warmup-steps"].includes(setting.flag);
    if (!says) expect(description).toContain(`${setting.min} to ${setting.max}`);
  }
});

test("every mode has its own line with its trade-off", () => {
  for (const [mode, trade] of Object.entries(syncModeTexts)) {
    const line = text.split("\n").find((each) => each.trim().startsWith(`${mode} `));
    expect(line?.trim()).toBe(mode.padEnd(20) + trade);
  }
});

test("wrap keeps words whole, and the text's own line breaks", () => {
  expect(wrap("one two\nthree", 40)).toEqual(["one two", "three"]);
  expect(wrap("one two three", 8)).toEqual(["one two", "three"]);
  expect(wrap("incomprehensible word", 8)).toEqual(["incomprehensible", "word"]);
  expect(wrap("", 8)).toEqual([""]);
});
