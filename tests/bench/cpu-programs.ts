/**
 * The two programs that `bench cpu` asks for times in turns: cpu-bench, built from zig/bench.zig,
 * and PyTorch by tests/reference/cpu_peer.py. Both read a case of JSON per line and answer with a
 * line of milliseconds.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { BasedXLError } from "../../src/errors.ts";
import { compilerOfPackages } from "../../src/setup/compiler.ts";
import { runTool } from "../../src/setup/tool.ts";
import { repositoryRoot } from "../../src/setup.ts";

/** A case as both programs read it; sizes are those of the operation's input. */
export type Case = Record<string, string | number | boolean>;

export class Program {
  private readonly lines: AsyncIterator<string>;

  private constructor(
    private readonly process: Bun.Subprocess<"pipe", "pipe", "ignore" | "inherit">,
    private readonly name: string,
  ) {
    this.lines = linesOf(process.stdout);
  }

  /** Builds cpu-bench where it is not fresh, and starts it. */
  static async native(): Promise<Program> {
    const zig = compilerOfPackages(repositoryRoot);
    if (!zig) throw new BasedXLError("setup", "The Zig compiler is missing: run bun install.");
    await runTool({
      command: [zig.path, "build", "cpu-bench", "-Doptimize=ReleaseFast", "--prefix", "zig-out"],
      cwd: repositoryRoot,
      env: {
        ...process.env,
        ...(zig.libFolder ? { ZIG_LIB_DIR: zig.libFolder } : {}),
        ZIG_GLOBAL_CACHE_DIR:
          process.env.ZIG_GLOBAL_CACHE_DIR ?? join(repositoryRoot, ".zig-cache", "global"),
      },
      failure: "cpu-bench did not build",
      hint: "",
      live: false,
    });
    const path = join(repositoryRoot, "zig-out/bin/cpu-bench");
    if (!existsSync(path)) throw new BasedXLError("setup", `The build left no ${path}.`);
    const child = Bun.spawn([path], { stdin: "pipe", stdout: "pipe", stderr: "inherit" });
    return new Program(child, "cpu-bench");
  }

  /** PyTorch's version and the program; null where this Python has no torch. */
  static async peer(python: string): Promise<{ version: string; program: Program } | null> {
    if (Bun.which(python) === null) return null;
    const script = join(import.meta.dir, "../reference/cpu_peer.py");
    const child = Bun.spawn([python, script], { stdin: "pipe", stdout: "pipe", stderr: "ignore" });
    const program = new Program(child, "cpu_peer.py");
    const first = await program.lines.next();
    if (first.done) return null;
    return { version: (JSON.parse(first.value) as { torch: string }).torch, program };
  }

  /** Milliseconds of wall time of one run. */
  async time(what: Case): Promise<number> {
    this.process.stdin.write(`${JSON.stringify(what)}\n`);
    this.process.stdin.flush();
    const answer = await this.lines.next();
    const milliseconds = Number.parseFloat(answer.done ? "" : answer.value);
    if (Number.isFinite(milliseconds)) return milliseconds;
    throw new BasedXLError("internal", `${this.name} did not answer ${JSON.stringify(what)}.`);
  }

  async close(): Promise<void> {
    this.process.stdin.end();
    await this.process.exited;
  }
}

// --- internal ---

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of stream) {
    const parts = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = parts.pop() ?? "";
    yield* parts;
  }
}
