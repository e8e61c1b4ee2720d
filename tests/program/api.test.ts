/**
 * The public API as a user of the package meets it: every example of docs/api.md runs as it stands.
 */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCli } from "../../src/cli.ts";

const root = join(import.meta.dir, "../..");
const page = readFileSync(join(root, "docs/api.md"), "utf8");
const examples = [...page.matchAll(/```ts\n(.*?)```/gs)].map(([, code = ""]) => code);

const folder = mkdtempSync(join(tmpdir(), "basedxl-api-"));
afterAll(() => rmSync(folder, { recursive: true }));

async function run(code: string | undefined): Promise<string> {
  const child = Bun.spawn([process.execPath, "-e", code ?? ""], {
    cwd: root,
    env: { ...process.env, BASEDXL_MODEL: "" },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  if (exitCode !== 0) throw new Error(err);
  return out;
}

test("there are four examples", () => {
  expect(examples).toHaveLength(4);
});

test("memory and time are known before weights load", async () => {
  expect(await run(examples[3])).toBe("1 true true\n");
}, 30_000);

test("images of one request may differ in prompt and guidance", async () => {
  expect(await run(examples[0])).toBe(
    "seed 7: 256x256, 196608 bytes of RGB\nseed 8: 256x256, 196608 bytes of RGB\n4 steps\n",
  );
}, 30_000);

test("a job is cancelled by its name, and the next one runs", async () => {
  expect(await run(examples[2])).toBe("cancelled false\n1\n");
}, 30_000);

test("an image is written as the command writes it, and read to generate it again", async () => {
  const [file, byCommand] = ["house.png", "command.png"].map((name) => join(folder, name));
  const code = examples[1]?.replaceAll('"house.png"', JSON.stringify(file));
  expect(await run(code)).toMatch(/^BasedXL \d\S+ true\n$/);
  const flags = ["--seed", "7", "--steps", "2", "--device", "cpu", "--quiet"];
  expect(await runCli(["sample", "a red house", ...flags, "--out", byCommand!])).toBe(0);
  expect(readFileSync(file!).equals(readFileSync(byCommand!))).toBe(true);
}, 30_000);
