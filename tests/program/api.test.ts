/**
 * The public API as a user of the package meets it: every example of docs/api.md runs as it stands.
 */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dir, "../..");
const page = readFileSync(join(root, "docs/api.md"), "utf8");
const examples = [...page.matchAll(/```ts\n(.*?)```/gs)].map(([, code = ""]) => code);

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

test("there are two examples", () => {
  expect(examples).toHaveLength(2);
});

test("images of one request may differ in prompt and guidance", async () => {
  expect(await run(examples[0])).toBe(
    "seed 7: 256x256, 196608 bytes of RGB\nseed 8: 256x256, 196608 bytes of RGB\n4 steps\n",
  );
}, 30_000);

test("a job is cancelled by its name, and the next one runs", async () => {
  expect(await run(examples[1])).toBe("cancelled false\n1\n");
}, 30_000);
