/**
 * The examples of docs/deploy: they can be read, and say what this version understands.
 */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { serveFlags } from "../../src/commands/serve-flags.ts";
import { workerFlags } from "../../src/commands/worker-flags.ts";
import { root } from "../support/sources.ts";

const flagsOf: Record<string, object> = { serve: serveFlags, worker: workerFlags };

/** All lists in a document, however deep. */
function listsIn(value: unknown): unknown[][] {
  if (typeof value !== "object" || value === null) return [];
  const inner = Object.values(value).flatMap(listsIn);
  return Array.isArray(value) ? [value, ...inner] : inner;
}

test.each(["compose.yaml", "kubernetes.yaml"])("%s names flags that there are", (name) => {
  const text = readFileSync(join(root, "docs/deploy", name), "utf8");
  const commands = listsIn(Bun.YAML.parse(text)).filter(([first]) => String(first) in flagsOf);
  expect(commands.map(([first]) => first)).toEqual(["serve", "worker"]);
  for (const [command, ...args] of commands) {
    const flags = args.map(String).filter((arg) => arg.startsWith("--"));
    for (const flag of flags) expect(flagsOf[String(command)]).toHaveProperty(flag.slice(2));
  }
});
