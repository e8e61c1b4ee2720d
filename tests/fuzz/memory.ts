/**
 * Whether cases leave something behind: the heap is measured again and again after a collection,
 * and compared with what it was when all caches had been filled.
 */
import { heapStats } from "bun:jsc";

/** Between two measurements; the first one comes when caches are full. */
const casesBetween = 25_000;
/** A handle or a listener that each case leaves is more after some 100,000. */
const growthBytesMax = 32 << 20;

export class MemoryWatch {
  private count = 0;
  private first: number | null = null;

  constructor(private readonly heapBytes: () => number = collectedHeapBytes) {}

  /** What is wrong; null where nothing is. */
  afterCase(): string | null {
    this.count += 1;
    if (this.count % casesBetween !== 0) return null;
    const bytes = this.heapBytes();
    this.first ??= bytes;
    if (bytes - this.first <= growthBytesMax) return null;
    this.first = bytes;
    return `it leaks: the heap has ${growthBytesMax >> 20} MiB more than after the first cases`;
  }
}

// --- internal ---

function collectedHeapBytes(): number {
  Bun.gc(true);
  return heapStats().heapSize;
}
