/**
 * A server with the model that comes with the program, for clients of other programs, and the same
 * images by the command.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readConfig } from "../../src/serve/config.ts";
import { startServer } from "../../src/serve/server.ts";
import { root } from "./sources.ts";

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/** Ready when it resolves. Its folder of outputs is removed with it unless it was given. */
export async function startDialectServer(given?: { outputs: string }) {
  const outputs = given?.outputs ?? mkdtempSync(join(tmpdir(), "basedxl-dialects-"));
  const config = readConfig({ flags: { port: "0", outputs, device: "cpu" }, env: {} });
  const server = await startServer({ config, log: silent });
  const url = server.url.replace(/\/$/, "");
  while ((await fetch(`${url}/ready`)).status !== 200) await Bun.sleep(10);
  return {
    ...{ url, outputs },
    stop: () => server.stop(),
    async [Symbol.asyncDispose]() {
      await server.stop();
      if (given === undefined) rmSync(outputs, { recursive: true });
    },
  };
}

/** The bytes of the PNG that `basedxl sample` writes. */
export async function sampledPng(flags: readonly string[]): Promise<Uint8Array> {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-sampled-"));
  const path = join(folder, "image.png");
  const command = [process.execPath, join(root, "src/main.ts"), "sample", "--device", "cpu"];
  const program = Bun.spawn([...command, ...flags, "--quiet", "--out", path], { stderr: "pipe" });
  const [error, code] = await Promise.all([new Response(program.stderr).text(), program.exited]);
  if (code !== 0) throw new Error(error);
  const bytes = await Bun.file(path).bytes();
  rmSync(folder, { recursive: true });
  return bytes;
}
