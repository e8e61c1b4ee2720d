/**
 * The two programs that `bench gpu` runs in turns: gpu-bench (zig/bench/gpu.zig) and PyTorch by
 * tests/reference/gpu_peer.py. Both first report their device, then answer each line with
 * milliseconds or with an error sentence.
 */
import * as v from "valibot";
import { BasedXLError } from "../errors.ts";
import type { Operation } from "../native/plan.ts";
import type { GpuDtype } from "./gpu-work.ts";
import { Program } from "./programs.ts";

const answerSchema = v.object({
  ms: v.optional(v.nullable(v.number())),
  error: v.optional(v.nullable(v.string())),
});

const aboutSchema = v.object({
  gpu: v.string(),
  multiprocessors: v.number(),
  l2_bytes: v.number(),
  memory_bytes: v.number(),
  driver: v.number(),
  cublaslt: v.number(),
  cudnn: v.number(),
  is_emulated: v.boolean(),
});
export type About = v.InferOutput<typeof aboutSchema>;

const peerAboutSchema = v.object({
  torch: v.string(),
  cuda: v.nullable(v.string()),
  cudnn: v.nullable(v.number()),
  gpu: v.string(),
  /** null where there is none. */
  diffusers: v.nullable(v.string()),
});
export type PeerAbout = v.InferOutput<typeof peerAboutSchema>;

/** Our program, gpu-bench. */
export class GpuBench {
  private constructor(
    private program: Program,
    readonly about: About,
    private readonly args: string[],
  ) {}

  /** `emulator` "" for NVIDIA's own libraries. Throws "no-device" with the library's sentence. */
  static async open(dtype: GpuDtype, emulator: string): Promise<GpuBench> {
    const args = [dtype, emulator];
    const program = await Program.native("gpu-bench", args);
    const first = await program.line();
    const json: unknown = JSON.parse(first ?? '{"error":"gpu-bench ended without output."}');
    const about = v.safeParse(aboutSchema, json);
    if (about.success) return new GpuBench(program, about.output, args);
    await program.close();
    throw new BasedXLError("no-device", v.parse(answerSchema, json).error ?? "No GPU answered.");
  }

  /** Milliseconds of one run on the GPU. Throws "gpu-failed". */
  async time(operation: Operation): Promise<number> {
    const answer = v.parse(answerSchema, JSON.parse((await this.program.ask(operation)) ?? "{}"));
    if (typeof answer.ms === "number") return answer.ms;
    throw new BasedXLError("gpu-failed", answer.error ?? "gpu-bench ended unexpectedly.");
  }

  /** Restarts after a failure: a CUDA context is unusable after an error. */
  async restart(): Promise<void> {
    await this.program.close();
    this.program = await Program.native("gpu-bench", this.args);
    await this.program.line();
  }

  async close(): Promise<void> {
    await this.program.close();
  }
}

/** Time limit of one answer: torch.compile may take very long. */
const peerLimitMs = 180_000;

/** The PyTorch program. It reports unsupported cases once, on standard error. */
export class GpuPeer {
  private readonly refused = new Set<string>();
  private hasEnded = false;

  private constructor(
    private readonly program: Program,
    readonly about: PeerAbout,
  ) {}

  /** null where this Python has no torch that sees the device. */
  static async open(python: string, device: "cuda" | "cpu"): Promise<GpuPeer | null> {
    const program = Program.python(python, "gpu_peer.py", ["--device", device]);
    const first = await program?.line();
    if (!program || !first) return null;
    const about = v.safeParse(peerAboutSchema, JSON.parse(first));
    if (about.success) return new GpuPeer(program, about.output);
    await program.close();
    return null;
  }

  /** Milliseconds, or null where PyTorch does not support the case. */
  async time(what: object): Promise<number | null> {
    const key = JSON.stringify(what);
    if (this.hasEnded || this.refused.has(key)) return null;
    // A killed program ends its output, so the pending answer is null.
    const limit = setTimeout(() => this.program.kill(), peerLimitMs);
    const line = await this.program.ask(what).finally(() => clearTimeout(limit));
    const answer = v.parse(answerSchema, JSON.parse(line ?? '{"error":"it ended"}'));
    if (typeof answer.ms === "number") return answer.ms;
    this.refused.add(key);
    this.hasEnded = line === null;
    process.stderr.write(`PyTorch: ${answer.error ?? "no answer"}\n`);
    return null;
  }

  async close(): Promise<void> {
    await this.program.close();
  }
}
