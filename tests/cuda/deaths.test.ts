/**
 * Images of the golden model on two emulated GPUs, one of whose ranks dies at a place drawn by
 * chance: its first contact with the other rank, algorithms that are measured, captures, exchanges
 * between segments, gathers, the decoder. The other rank ends too, there is one sentence, and the
 * next image has the bits that it should have. zig/devices/failures_test.zig does so with an
 * exchange alone.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { BasedXLError } from "../../src/errors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import {
  type EmulatedCall,
  emulatedCallCount,
  emulatedCalls,
  failEmulatedCall,
} from "../../src/native/testing.ts";
import type { Session } from "../../src/pipeline/session.ts";
import { latentsOf, requestOf, type Work, withSession } from "../support/draw.ts";
import { emulated } from "../support/emulator.ts";
import { sampled, seedName } from "../support/seed.ts";

setDefaultTimeout(240_000);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const deep = ["full", "cached", "full"] as const;
/** One synchronous step and two that read stale values; one leaves out the deep slots. */
const work: Work = {
  ...{ model, width: 32, height: 64, stepCount: 3, guidanceScale: 1 },
  ...{ rankCount: 2, splitBatch: false, outerSkips: 1 },
  reuse: deep.map((each) => ({ deep: each, cross: "compute" })),
};
const request = requestOf({ ...work, syncMode: "corrected_async_gn" });
/** Those that a session survives; tests/faults has the others. */
const kinds = emulatedCalls.filter((call) => !["none", "kernel", "device"].includes(call));
/** A session begins with everything to be measured and captured, and then replays. */
const placesPerSession = 4;

interface Place {
  kind: number;
  gpu: number;
  /** Among the calls of an image, from 0 to 1. */
  at: number;
}
const place: fc.Arbitrary<Place> = fc.record({
  kind: fc.nat(kinds.length - 1),
  gpu: fc.nat(1),
  at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
});
const places = sampled(fc.array(place, { minLength: 40, maxLength: 40 }), 1).flat();

test.each([
  { transport: "nccl", mine: places.slice(0, 24) },
  { transport: "peer", mine: places.slice(24) },
] as const)(`a rank dies at $mine.length places, $transport (${seedName})`, async (of) => {
  const gpu = emulated({ share: false, transport: of.transport });
  const images: Image[] = [];
  await withSession({ ...work, gpu }, async (session) => {
    for (let i = 0; i < placesPerSession; i++) images.push(await drawWhole(session));
  });
  for (let first = 0; first < of.mine.length; first += placesPerSession)
    await withSession({ ...work, gpu }, async (session) => {
      for (const [i, place] of of.mine.slice(first, first + placesPerSession).entries()) {
        // The counts of an image that came after as many others.
        await dieAt(session, place, images[i] as Image);
        const { bits } = await drawWhole(session);
        expect({ place, isWhole: bits.equals(images[0]?.bits as Buffer) }).toEqual({
          place,
          isWhole: true,
        });
      }
    });
});

// --- internal ---

interface Image {
  bits: Buffer;
  /** By kind and GPU. */
  counts: number[][];
}

async function drawWhole(session: Session): Promise<Image> {
  failEmulatedCall("none");
  const { buffer } = latentsOf(await session.image(request));
  const counts = kinds.map((call) => [0, 1].map((gpu) => emulatedCallCount(call, gpu)));
  return { bits: Buffer.from(buffer), counts };
}

/** Fails a call of the image, the next kind's where there is none of the place's own. */
async function dieAt(session: Session, { kind, gpu, at }: Place, { counts }: Image): Promise<void> {
  const inTurn = kinds.map((_, i) => (kind + i) % kinds.length);
  const chosen = inTurn.find((i) => (counts[i]?.[gpu] ?? 0) > 0) ?? 0;
  // Where the failures before have left more graphs than there were, launches and captures are
  // fewer; events are as many in every image.
  for (const i of [chosen, kinds.indexOf("event_record")]) {
    const call = kinds[i] as EmulatedCall;
    failEmulatedCall(call, gpu, Math.floor(at * (counts[i]?.[gpu] ?? 0)));
    const message = await failureOf(session);
    if (message === null) continue;
    // Of the rank that died, and not of the other, which waits for it.
    const driver = `cu\\w+ failed: .*rank ${gpu} on GPU ${gpu}`;
    const nccl = `ncclGroupEnd failed: .*rank ${gpu}\\)`;
    expect(message).toMatch(new RegExp(`^${call === "nccl_group" ? nccl : driver}`));
    return;
  }
  throw new Error("no call failed");
}

/** The sentence of an image that fails; null where it does not. */
async function failureOf(session: Session): Promise<string | null> {
  try {
    await session.image(request);
    return null;
  } catch (error) {
    if (!(error instanceof BasedXLError)) throw error;
    expect(error.code).toBe("gpu-failed");
    return error.message;
  }
}
