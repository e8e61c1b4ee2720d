/**
 * The timing programs of the benches, run in turns: cpu-bench and gpu-bench, built from zig/, and
 * PyTorch by tests/reference/{cpu,gpu}_peer.py. They read one JSON case per line and answer with
 * one line: the CPU programs with milliseconds, the GPU programs with JSON.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { BasedXLError } from "../errors.ts";
import { compilerOfPackages, findNvcc } from "../setup/compiler.ts";
import { zigEnvironment } from "../setup/native.ts";
import { runTool } from "../setup/tool.ts";
import { repositoryRoot } from "../setup.ts";

/** A case in the programs' format; sizes are those of the operation's input. */
export type Case = Record<string, string | number | boolean>;

interface PeerVersions {
  torch: string;
  onnxruntime?: string;
}

interface Peer {
  /** Of PyTorch. */
  version: string;
  onnxruntime: string | null;
  program: Program;
}

type Child = Bun.Subprocess<"pipe", "pipe", "ignore" | "inherit">;

export class Program {
  private readonly lines: AsyncIterator<string>;

  private constructor(
    private readonly child: Child,
    private readonly name: string,
  ) {
    this.lines = linesOf(child.stdout);
  }

  /** Builds a program of build.zig where it is stale, and starts it. */
  static async native(
    name: "cpu-bench" | "gpu-bench" | "cudnn-plans",
    args: string[] = [],
  ): Promise<Program> {
    const zig = compilerOfPackages(repositoryRoot);
    if (!zig) throw new BasedXLError("setup", "The Zig compiler is missing: run bun install.");
    const nvcc = name === "gpu-bench" ? findNvcc(process.env).nvcc : null;
    const flags = ["-Doptimize=ReleaseFast", "--prefix", "zig-out"];
    if (nvcc) flags.push(`-Dnvcc=${nvcc.path}`);
    await runTool({
      command: [zig.path, "build", name, ...flags],
      cwd: repositoryRoot,
      env: zigEnvironment(repositoryRoot, zig),
      failure: `${name} did not build`,
      hint: "",
      live: false,
    });
    const path = join(repositoryRoot, "zig-out/bin", name);
    if (!existsSync(path)) throw new BasedXLError("setup", `The build left no ${path}.`);
    const child = Bun.spawn([path, ...args], { stdin: "pipe", stdout: "pipe", stderr: "inherit" });
    return new Program(child, name);
  }

  /** PyTorch on the CPU: its version and the program; null where this Python has no torch. */
  static async peer(python: string): Promise<Peer | null> {
    const program = Program.python(python, "cpu_peer.py", []);
    const first = await program?.line();
    if (!program || !first) return null;
    const { torch, onnxruntime = null } = JSON.parse(first) as PeerVersions;
    return { version: torch, onnxruntime, program };
  }

  /** A script of tests/reference/; null where there is no such Python. */
  static python(python: string, script: string, args: string[]): Program | null {
    if (Bun.which(python) === null) return null;
    const path = join(import.meta.dir, "../../tests/reference", script);
    const command = [python, path, ...args];
    const child = Bun.spawn(command, { stdin: "pipe", stdout: "pipe", stderr: "ignore" });
    return new Program(child, script);
  }

  /** The next line of its output; null at the end. */
  async line(): Promise<string | null> {
    const next = await this.lines.next();
    return next.done ? null : next.value;
  }

  /** The answer to a case; null where the program has ended. */
  async ask(what: object): Promise<string | null> {
    this.child.stdin.write(`${JSON.stringify(what)}\n`);
    this.child.stdin.flush();
    return await this.line();
  }

  /** Milliseconds of wall time of one run. */
  async time(what: Case): Promise<number> {
    const milliseconds = Number.parseFloat((await this.ask(what)) ?? "");
    if (Number.isFinite(milliseconds)) return milliseconds;
    throw new BasedXLError("internal", `${this.name} did not answer ${JSON.stringify(what)}.`);
  }

  /** Kills a program that does not answer. */
  kill(): void {
    this.child.kill("SIGKILL");
  }

  async close(): Promise<void> {
    this.child.stdin.end();
    await this.child.exited;
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
