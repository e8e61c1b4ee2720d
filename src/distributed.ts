/**
 * A image drawn by several processes, on one machine or more: who has which ranks, what must be
 * the same for all, and how they start and stop together. NCCL carries what ranks tell each other
 * while they draw (zig/), a TCP connection to machine 0 all else (machines/).
 */
import type { DeviceOptions } from "./devices.ts";
import { type MachineEnvironment, machineEnvironment } from "./distributed/environment.ts";
import type { Link } from "./distributed/link.ts";
import { meet } from "./distributed/meeting.ts";
import { settingsOf } from "./distributed/settings.ts";
import { BasedXLError } from "./errors.ts";
import { makeMeetingId } from "./native/meeting-id.ts";
import type { GenerateRequest } from "./pipeline/generate.ts";
import { limits } from "./settings/limits.ts";

export interface Machines extends MachineEnvironment {
  /** Of all machines. */
  rankCount: number;
  /** Of each. */
  ranksHere: number;
}

type Wishes = Pick<DeviceOptions, "device" | "rankCount" | "shareGpu" | "transport"> & {
  vaeTiling: boolean;
};

/**
 * The machines that the environment speaks of, each with `rankCount` ranks; null for this one
 * alone. Throws "bad-option" for what several machines cannot do.
 */
export function findMachines(
  wishes: Wishes,
  env: Record<string, string | undefined>,
): Machines | null {
  const found = machineEnvironment(env);
  if (found === null) return null;
  const { rankCount: ranksHere } = wishes;
  const rankCount = found.count * ranksHere;
  if (rankCount > limits.gpus.max) {
    throw refused(`draw with ${rankCount} ranks, and ${limits.gpus.max} is the most`, found);
  }
  if (wishes.device === "cpu") throw refused("share a image on GPUs alone, not by --device cpu");
  if (wishes.transport === "peer") throw refused("reach each other by NCCL, not by peer copies");
  if (wishes.shareGpu) throw refused("need a GPU for each rank: leave --share-gpu out");
  if (wishes.vaeTiling) throw refused("share the decode, exactly: leave --vae-tiling out");
  return { ...found, rankCount, ranksHere };
}

/** "Machine 1 (ranks 2 and 3)" */
export function describeMachine({ ranksHere }: Pick<Machines, "ranksHere">, index: number): string {
  const first = index * ranksHere;
  const last = first + ranksHere - 1;
  if (ranksHere === 1) return `Machine ${index} (rank ${first})`;
  return `Machine ${index} (ranks ${first} ${ranksHere === 2 ? "and" : "to"} ${last})`;
}

export interface Gathered {
  request: GenerateRequest;
  link: Link;
}

/**
 * Waits for the other machines and gives the request with this machine's part in it. A seed that
 * nobody named is then machine 0's. Rejects as `meet` does, with "no-device" without a GPU.
 */
export async function gatherMachines(
  machines: Machines,
  request: GenerateRequest,
  told: { version: string; seedIsRandom: boolean },
  signal: AbortSignal,
): Promise<Gathered> {
  const { gpu, seeds } = request;
  if (!gpu)
    throw new BasedXLError("no-device", refused("need GPUs, and there is none here").message);
  const { index, ranksHere, localIndex } = machines;
  const { link, meetingId, seed } = await meet({
    machine: machines,
    settings: settingsOf(request, { ...told, gpus: ranksHere }),
    decide: () => ({
      meetingId: Buffer.from(makeMeetingId(gpu.library)).toString("base64"),
      seed: String(seeds[0]),
    }),
    describe: (other) => describeMachine(machines, other),
    signal,
  });
  const part = {
    rankFirst: index * ranksHere,
    rankCount: ranksHere,
    gpuFirst: localIndex * ranksHere,
    meetingId: new Uint8Array(Buffer.from(meetingId, "base64")),
  };
  const first = BigInt(seed);
  return {
    request: {
      ...request,
      seeds: seeds.map((_, i) => first + BigInt(i)),
      gpu: { ...gpu, transport: "nccl", part },
    },
    link,
  };
}

/** Runs `draw`; whoever fails or goes away stops all. Without a link it is `draw` alone. */
export async function drawTogether<T>(
  link: Link | null,
  signal: AbortSignal,
  draw: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  if (link === null) return await draw(signal);
  try {
    const result = await draw(AbortSignal.any([signal, link.signal]));
    await link.finish();
    return result;
  } catch (error) {
    const failure = signal.aborted ? null : link.failure;
    const message = error instanceof BasedXLError ? error.message : "Something went wrong inside.";
    await link.fail(message);
    throw failure ?? error;
  }
}

// --- internal ---

function refused(what: string, found?: MachineEnvironment): BasedXLError {
  const who = found ? `${found.count} processes (WORLD_SIZE)` : "Several machines (WORLD_SIZE)";
  return new BasedXLError("bad-option", `${who} ${what}.`);
}
