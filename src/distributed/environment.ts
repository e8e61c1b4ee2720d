/**
 * The place of this process in its process group: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as
 * torchrun, Slurm scripts, MPI wrappers and Kubernetes set them. RANK and WORLD_SIZE count
 * processes; each generates with as many GPUs as its --gpus says, one or more.
 */
import { badOption, escaped } from "../errors.ts";
import { settings } from "../settings/table.ts";

export interface ProcessEnvironment {
  /** RANK, from 0; process 0 decides and writes the image. */
  index: number;
  /** WORLD_SIZE, 2 or more. */
  count: number;
  /** Index among the processes of this machine (LOCAL_RANK). */
  localIndex: number;
  /** Where process 0 listens: on MASTER_PORT, or beside it where torchrun uses that. */
  host: string;
  port: number;
}

type Environment = Record<string, string | undefined>;

/**
 * null where nothing is set, or where WORLD_SIZE=1 says that this process is all there is. Throws
 * "bad-option" where variables are missing or no numbers.
 */
export function processEnvironment(env: Environment): ProcessEnvironment | null {
  const missing = names.filter((name) => !env[name]);
  if (missing.length === names.length) return null;
  // One process needs nobody's address: launchers of a single task often leave it out.
  if (/^0*1$/.test(env.WORLD_SIZE?.trim() ?? "")) {
    if (env.RANK) whole(env, "RANK", 0, 0);
    return null;
  }
  if (missing.length > 0) {
    const set = names.filter((name) => !missing.includes(name));
    throw badOption(
      `${inWords(set)} ${set.length === 1 ? "is" : "are"} set and ${inWords(missing)} \
${missing.length === 1 ? "is" : "are"} not: several processes need all of ${inWords(names)}, one \
process none.`,
    );
  }
  const count = whole(env, "WORLD_SIZE", 1, settings.rankCount.max);
  const index = whole(env, "RANK", 0, count - 1);
  const masterPort = whole(env, "MASTER_PORT", 1, portMax);
  // torchrun's own agent listens there: process 0 takes the port beside it.
  const isTaken = env.TORCHELASTIC_USE_AGENT_STORE === "True";
  const beside = masterPort < portMax ? masterPort + 1 : masterPort - 1;
  const port = isTaken ? beside : masterPort;
  const host = env.MASTER_ADDR ?? "";
  if (!/^[\w.:%-]+$/.test(host)) {
    throw badOption(
      `MASTER_ADDR must be the name or address of process 0, not "${escaped(host, 100)}".`,
    );
  }
  const localIndex = env.LOCAL_RANK ? whole(env, "LOCAL_RANK", 0, settings.rankCount.max - 1) : 0;
  return { index, count, localIndex, host, port };
}

// --- internal ---

const portMax = 65_535;
const names = ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"] as const;

function inWords(list: readonly string[]): string {
  return list.length < 2 ? list.join("") : `${list.slice(0, -1).join(", ")} and ${list.at(-1)}`;
}

function whole(env: Environment, name: string, min: number, max: number): number {
  const text = env[name]?.trim() ?? "";
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  const range = min === max ? `${min}` : `a whole number from ${min} to ${max}`;
  throw badOption(`${name} must be ${range}, not "${escaped(text, 100)}".`);
}
