/**
 * The GPU section of the report, from what the probe found.
 */
import { driverLine } from "./driver.ts";
import type { ProbeResult } from "./gpu-probe.ts";
import { count } from "./machine.ts";
import {
  type Gpu,
  type GpuFacts,
  gigabytes,
  type Line,
  note,
  ok,
  type Peer,
  problem,
  type Section,
  type VendorLibrary,
} from "./report.ts";

const title = "GPUs";

/** `kernels` are the compiled architectures, "" for none, null where the library did not load. */
export function gpuSection(
  probe: ProbeResult,
  kernels: string | null,
  env: Record<string, string | undefined>,
): Section {
  if ("problem" in probe) {
    return { title, lines: [problem("driver", probe.problem)], facts: { problem: probe.problem } };
  }
  const { facts } = probe;
  return {
    title,
    lines: [
      driverLine(facts.driver, facts.gpus, env),
      ...(facts.gpus.length > 0 ? presentLines(facts, kernels) : []),
    ],
    facts: { ...facts, kernels },
  };
}

// --- internal ---

/** Lines that matter only where there is a GPU. */
function presentLines({ gpus, libraries, peers }: GpuFacts, kernels: string | null): Line[] {
  return [
    ...gpus.map(gpuLine),
    kernelLine(kernels),
    ...(libraries === null
      ? [note("libraries", "cuBLASLt, cuDNN, NCCL: not used by this version")]
      : libraries.map(libraryLine)),
    ...peerLines(gpus, peers),
  ];
}

function gpuLine({ index, name, architecture, memoryBytes, freeBytes }: Gpu): Line {
  const memory =
    memoryBytes === null || freeBytes === null
      ? null
      : `${gigabytes(freeBytes)} of ${gigabytes(memoryBytes)} free`;
  return ok(`GPU ${index}`, [name ?? "present", architecture, memory].filter(Boolean).join(", "));
}

function kernelLine(kernels: string | null): Line {
  if (kernels) return ok("kernels", kernels);
  return problem("kernels", {
    what: "This build has no CUDA kernels.",
    advice: "Build it where nvcc is on the PATH, or use a binary that was built so.",
  });
}

function libraryLine({ name, neededFor, version, path, problem: wrong }: VendorLibrary): Line {
  if (wrong) return problem(name, wrong);
  const found = [version, path].filter(Boolean).join(", ");
  return found ? ok(name, found) : note(name, `not found; needed for ${neededFor}`);
}

/** One line for all pairs that work, one for each that does not. */
function peerLines(gpus: readonly Gpu[], peers: readonly Peer[] | null): Line[] {
  if (gpus.length < 2) return [];
  if (peers === null) return [note("copies", "between GPUs: not tested by this version")];
  const label = ({ from, to }: Peer) => `${from} to ${to}`;
  const wrong = peers.flatMap((peer) =>
    peer.problem ? [problem(`copy ${label(peer)}`, peer.problem)] : [],
  );
  const good = peers.filter((peer) => peer.problem === null);
  const direct = good.filter((peer) => peer.direct);
  const speeds = good.flatMap(({ bytesPerSecond }) => bytesPerSecond ?? []);
  const slowest = speeds.length > 0 ? `, slowest ${gigabytes(Math.min(...speeds))}/s` : "";
  const text = `${count(good.length, "pair")} copy, ${direct.length} directly${slowest}`;
  return good.length > 0 ? [ok("copies", text), ...wrong] : wrong;
}
