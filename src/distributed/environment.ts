/**
 * Where this process stands among several: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as
 * torchrun, Slurm scripts, MPI wrappers and Kubernetes set them. RANK and WORLD_SIZE count
 * processes; each draws with as many GPUs as its --gpus says, one or more.
 */
import { BasedXLError } from "../errors.ts";
import { limits } from "../settings/limits.ts";

export interface MachineEnvironment {
  /** Of this process, from 0; process 0 decides and writes the image. */
  index: number;
  /** Of processes, 2 or more. */
  count: number;
  /** Of this process among those on its machine (LOCAL_RANK). */
  localIndex: number;
  /** Where process 0 listens: on MASTER_PORT, or beside it where torchrun uses that. */
  host: string;
  port: number;
}

type Environment = Record<string, string | undefined>;

/** null where nothing is set, or one process is all. Throws "bad-option" for half and nonsense. */
export function machineEnvironment(env: Environment): MachineEnvironment | null {
  const missing = names.filter((name) => !env[name]);
  if (missing.length === names.length) return null;
  if (missing.length > 0) {
    const set = names.filter((name) => !missing.includes(name));
    throw badOption(
      `${inWords(set)} ${set.length === 1 ? "is" : "are"} set and ${inWords(missing)} \
${missing.length === 1 ? "is" : "are"} not: several machines need all of ${inWords(names)}, one \
machine none.`,
    );
  }
  const count = whole(env, "WORLD_SIZE", 1, limits.gpus.max);
  const index = whole(env, "RANK", 0, count - 1);
  const masterPort = whole(env, "MASTER_PORT", 1, portMax);
  // There torchrun's own agent listens: the port beside it is machine 0's.
  const isTaken = env.TORCHELASTIC_USE_AGENT_STORE === "True";
  const beside = masterPort < portMax ? masterPort + 1 : masterPort - 1;
  const port = isTaken ? beside : masterPort;
  const host = env.MASTER_ADDR ?? "";
  if (!/^[\w.:%-]+$/.test(host)) {
    throw badOption(`MASTER_ADDR must be the name or address of machine 0, not "${host}".`);
  }
  const localIndex = env.LOCAL_RANK ? whole(env, "LOCAL_RANK", 0, limits.gpus.max - 1) : 0;
  return count === 1 ? null : { index, count, localIndex, host, port };
}

// --- internal ---

const portMax = 65_535;
const names = ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"] as const;

function badOption(message: string): BasedXLError {
  return new BasedXLError("bad-option", message);
}

function inWords(list: readonly string[]): string {
  return list.length < 2 ? list.join("") : `${list.slice(0, -1).join(", ")} and ${list.at(-1)}`;
}

function whole(env: Environment, name: string, min: number, max: number): number {
  const text = env[name] ?? "";
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw badOption(`${name} must be a whole number from ${min} to ${max}, not "${text}".`);
}
