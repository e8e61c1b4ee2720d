/**
 * The secret of a rendezvous (BASEDXL_SECRET): both sides prove that they know it by HMAC over
 * numbers that the other side chose, and it is never sent. Where process 0 can be reached by other
 * machines and was given none, it makes one, which the user hands to the other processes.
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { badOption } from "../../errors.ts";

export const secretVariable = "BASEDXL_SECRET";

const lengthMin = 8;
const lengthMax = 1000;

/** Which side a proof comes from: nobody can send a proof back to where it came from. */
export type Side = "client" | "coordinator";

/** Throws "bad-option" for a secret that could be guessed; undefined is none. */
export function checkSecret(secret: string | undefined): void {
  if (secret === undefined || (secret.length >= lengthMin && secret.length <= lengthMax)) return;
  throw badOption(
    `${secretVariable} must have ${lengthMin} to ${lengthMax} characters, the same for all \
processes.`,
  );
}

export function newSecret(): string {
  return randomBytes(16).toString("hex");
}

/** A number that is used once: a proof that was overheard proves nothing later. */
export function newNonce(): string {
  return randomBytes(16).toString("hex");
}

/** HMAC-SHA256 of the parts under the secret, in hexadecimal digits; "" without a secret. */
export function proofOf(secret: string | undefined, side: Side, ...parts: unknown[]): string {
  if (secret === undefined) return "";
  return createHmac("sha256", secret)
    .update(JSON.stringify([side, ...parts]))
    .digest("hex");
}

/** Whether `proof` is that of `side`, in a time that does not tell how much of it is right. */
export function isProof(
  secret: string | undefined,
  proof: unknown,
  side: Side,
  ...parts: unknown[]
): boolean {
  if (secret === undefined) return true;
  if (typeof proof !== "string") return false;
  const [given, wanted] = [proof, proofOf(secret, side, ...parts)].map((each) => Buffer.from(each));
  return given?.length === wanted?.length && timingSafeEqual(given!, wanted!);
}
