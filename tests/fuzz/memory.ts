/**
 * Whether cases leave something behind: the heap is measured again and again after a collection,
 * and compared with what it was when all caches had been filled.
 */
import { heapStats } from "bun:jsc";

/** Before the first measurement, when caches are full; each next one comes after twice as many. */
const casesFirst = 25_000;
/** A handle or a listener that each case leaves is more after some 100,000. */
const growthBytesMax = 32 << 20;
/** What cases leave to end by itself, such as a connection's last wait, has ended then. */
const settleMs = 1_500;

export class MemoryWatch {
  private count = 0;
  private next = casesFirst;
  private first: number | null = null;

  constructor(private readonly heapBytes: () => Promise<number> = settledHeapBytes) {}

  /** What is wrong; null where nothing is. */
  async afterCase(): Promise<string | null> {
    this.count += 1;
    if (this.count < this.next) return null;
    this.next *= 2;
    const bytes = await this.heapBytes();
    this.first ??= bytes;
    if (bytes - this.first <= growthBytesMax) return null;
    this.first = bytes;
    return `it leaks: the heap has ${growthBytesMax >> 20} MiB more than after the first cases`;
  }
}

// --- internal ---

async function settledHeapBytes(): Promise<number> {
  await Bun.sleep(settleMs);
  Bun.gc(true);
  return heapStats().heapSize;
}
