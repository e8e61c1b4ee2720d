/**
 * How ranks share the work: all on one image, or several images side by side. By itself the server
 * takes what ends the jobs that are there earliest on average; docs/serve.md has the rule.
 */
import { badOption, escaped } from "../errors.ts";

/** `images` side by side, with `ranks` each. */
export interface Share {
  ranks: number;
  images: number;
}

/** The shares that `--share` allows for so many ranks. Throws "bad-option". */
export function parseShare(text: string, rankCount: number): readonly Share[] {
  if (text === "auto") {
    const divisors = Array.from({ length: rankCount }, (_, i) => rankCount - i);
    return divisors
      .filter((ranks) => rankCount % ranks === 0)
      .map((ranks) => ({ ranks, images: rankCount / ranks }));
  }
  const [, first, second = "1"] = /^(\d{1,3})(?:x(\d{1,3}))?$/.exec(text) ?? [];
  const [ranks, images] = [Number(first), Number(second)];
  if (ranks >= 1 && images >= 1 && ranks * images === rankCount) return [{ ranks, images }];
  const example = rankCount % 2 === 0 ? `, such as ${rankCount / 2}x2` : "";
  throw badOption(
    `--share must be auto or RxP with R times P equal to --gpus ${rankCount}${example}, not ` +
      `"${escaped(text, 40)}".`,
  );
}

/** `4`, `2x2` */
export function shareText({ ranks, images }: Share): string {
  return images === 1 ? `${ranks}` : `${ranks}x${images}`;
}

/** What one image needs, relative to one rank, where nothing was measured. */
function assumedSpeedup(ranks: number): number {
  return 1 + 0.75 * (ranks - 1);
}

interface Load {
  /** Jobs that run or wait. */
  jobCount: number;
  /** How much faster so many ranks generate one image than one rank. */
  speedup?: (ranks: number) => number;
  /** What a change costs, in times of an image on one rank; 0 where nothing must be loaded. */
  changeCost?: (share: Share) => number;
}

/**
 * The share with the least mean time to the end of each job, if they all came now and took equally
 * long; of equals the one with more ranks per image.
 */
export function chooseShare(
  shares: readonly Share[],
  { jobCount, speedup = assumedSpeedup, changeCost = () => 0 }: Load,
): Share {
  const meanTime = (share: Share) => {
    const { ranks, images } = share;
    const count = Math.max(1, jobCount);
    const waves = Math.ceil(count / images);
    const inLast = count - (waves - 1) * images;
    // Waves end after 1, 2, ... times of an image.
    const sum = images * ((waves * (waves - 1)) / 2) + inLast * waves;
    return sum / count / speedup(ranks) + changeCost(share);
  };
  const ordered = [...shares].sort((a, b) => b.ranks - a.ranks);
  return ordered.reduce((best, share) => (meanTime(share) < meanTime(best) ? share : best));
}

/** How fast images were generated, by ranks: means that follow the last jobs. */
export class SpeedMeter {
  /** Seconds of a unit of work. */
  private readonly seconds = new Map<number, number>();
  private jobSeconds: number | undefined;
  private loadSeconds = 0;

  /** `work` is in any unit that is the same for all. */
  note(ranks: number, work: number, seconds: number): void {
    this.seconds.set(ranks, follow(this.seconds.get(ranks), seconds / work));
  }

  noteJob(seconds: number): void {
    this.jobSeconds = follow(this.jobSeconds, seconds);
  }

  /** A pipeline that was loaded already takes no time. */
  noteLoad(seconds: number): void {
    this.loadSeconds = Math.max(this.loadSeconds, seconds);
  }

  /** Relative to one rank; assumed where one of the two was not measured. */
  speedup(ranks: number): number {
    const [one, these] = [this.seconds.get(1), this.seconds.get(ranks)];
    return one === undefined || these === undefined ? assumedSpeedup(ranks) : one / these;
  }

  /** Until one of so many places is likely to be free. */
  secondsToFree(places: number): number {
    const seconds = Math.ceil((this.jobSeconds ?? 10) / Math.max(1, places));
    return Math.min(600, Math.max(1, seconds));
  }

  /** Of a model, in times of a job. */
  loadCost(): number {
    return this.jobSeconds === undefined ? 0 : this.loadSeconds / this.jobSeconds;
  }
}

/** A mean of the last values, so that it follows a change. */
export function follow(mean: number | undefined, value: number): number {
  return mean === undefined ? value : 0.7 * mean + 0.3 * value;
}
