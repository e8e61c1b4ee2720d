/**
 * Random numbers of a case, which its seed and index decide: a case is made again from the two.
 */
export class Random {
  private state: number;

  constructor(seed: number, index = 0) {
    const [low, high] = [index >>> 0, Math.floor(index / 2 ** 32)];
    this.state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(low + 1, 0xc2b2ae35) ^ high;
    for (let i = 0; i < 4; i++) this.next();
  }

  /** A whole number from 0, below `count`. */
  below(count: number): number {
    return Math.floor((this.next() / 2 ** 32) * count);
  }

  /** Whether something happens that does once in `count` times. */
  once(count: number): boolean {
    return this.below(count) === 0;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  /** Mulberry32. */
  private next(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }
}
