/**
 * What coordinator and clients say to each other, and what of it is believed.
 *
 *     coordinator -> client   {basedxl, challenge, asksSecret}
 *     client -> coordinator   {basedxl, rank, worldSize, settings, nonce, proof}
 *     coordinator -> client   {welcome: {ncclUniqueId, seed}, proof} or {refused}
 */
import { BasedXLError } from "../../errors.ts";
import type { ConnectionLimits, Message } from "../connection.ts";
import type { ProcessEnvironment } from "../environment.ts";
import type { PeerGroup } from "../peer-group.ts";
import type { Settings } from "../settings.ts";

/** What process 0 decides for all. */
export interface Decisions {
  /** Base64. */
  ncclUniqueId: string;
  /** Seed of the first image, in decimal digits. */
  seed: string;
}

export interface RendezvousOptions {
  process: ProcessEnvironment;
  settings: Settings;
  /** Called on process 0 alone, when all are there. */
  decide(): Decisions;
  /** Names a process as messages do. */
  describe(index: number): string;
  /** What a welcome must fit: images of the request, bytes of an ncclUniqueId. */
  expected: { imageCount: number; idBytes: number };
  /** Text that all processes share and strangers do not know; undefined = none. */
  secret?: string | undefined;
  signal?: AbortSignal | undefined;
  /** Called on process 0 with the secret that it made, for the other processes. */
  onSecret?: (secret: string) => void;
  /** Called on process 0 for each visitor that is sent away, with the reason. */
  onRefusal?: (sentence: string) => void;
  /** How long to wait for the others. */
  limitMs?: number;
  connection?: ConnectionLimits;
}

export interface RendezvousResult extends Decisions {
  peers: PeerGroup;
}

/** Changes whenever a message changes its meaning. */
export const protocolVersion = 3;

export interface Challenge {
  challenge: string;
  asksSecret: boolean;
}

export interface Hello {
  rank: number;
  worldSize: number;
  settings: Settings;
  nonce: string;
}

/** Ranks, settings and decisions have few and short parts; anything else is no message of ours. */
const limits = { entries: 100, keyLength: 100, valueLength: 1 << 16, nonceLength: 100 };

export function rankFailed(message: string): BasedXLError {
  return new BasedXLError("rank-failed", message);
}

/** The challenge in `message`; null where it is none of this version. */
export function challengeOf({ basedxl, challenge, asksSecret }: Message): Challenge | null {
  if (basedxl !== protocolVersion || typeof asksSecret !== "boolean") return null;
  return isNonce(challenge) ? { challenge, asksSecret } : null;
}

/** The hello in `message`; null where it is none of this version. */
export function helloOf(message: Message): Hello | null {
  const { basedxl, rank, worldSize, settings, nonce } = message;
  if (basedxl !== protocolVersion) return null;
  if (!isIndex(rank) || !isIndex(worldSize)) return null;
  if (!isNonce(nonce)) return null;
  const values = settingsOf(settings);
  return values && { rank, worldSize, settings: values, nonce };
}

/**
 * The decisions in `welcome`; null where they are none: a seed is a number below 2^63 with room
 * for those of `imageCount` images, one up each, and an id has exactly `idBytes` bytes.
 */
export function decisionsOf(
  welcome: unknown,
  { imageCount, idBytes }: RendezvousOptions["expected"],
): Decisions | null {
  if (typeof welcome !== "object" || welcome === null) return null;
  const { ncclUniqueId, seed } = welcome as Partial<Record<string, unknown>>;
  if (typeof ncclUniqueId !== "string" || typeof seed !== "string") return null;
  if (!/^\d{1,19}$/.test(seed) || BigInt(seed) + BigInt(imageCount) > 1n << 63n) return null;
  const id = Buffer.from(ncclUniqueId, "base64");
  if (id.length !== idBytes || id.toString("base64") !== ncclUniqueId) return null;
  return { ncclUniqueId, seed };
}

// --- internal ---

function isIndex(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value < 1 << 16;
}

function isNonce(value: unknown): value is string {
  return typeof value === "string" && value.length <= limits.nonceLength;
}

/** Names and values, all of them short texts. */
function settingsOf(value: unknown): Settings | null {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return null;
  const entries = Object.entries(value);
  const isShort = ([name, text]: [string, unknown]) =>
    name.length <= limits.keyLength &&
    typeof text === "string" &&
    text.length <= limits.valueLength;
  return entries.length <= limits.entries && entries.every(isShort) ? { ...value } : null;
}
