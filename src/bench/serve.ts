/**
 * `bun run bench serve`: the server from outside, on CPU ranks with the bundled model: what it adds
 * to an image, how fast /health answers while it generates, shares of ranks, jobs computed
 * together, cancelling, and kills of the server and of workers. The exit code is 1 where a limit is
 * missed.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ArgsDef } from "citty";
import { writeImage } from "../metadata.ts";
import { medianMs, Pipeline } from "../pipeline.ts";
import { renderHelp } from "../terminal/help.ts";
import { namesOf, readFlags, sharedFlags, wholeOf } from "./flags.ts";
import { renderTable } from "./report.ts";
import { usageOf } from "./support/process-usage.ts";
import { findRedis, RedisProcess } from "./support/redis-process.ts";
import { killWhileGenerating, killWorkers, ServeProcess } from "./support/serve-process.ts";

const partNames = ["added", "health", "share", "batch", "cancel", "kills", "workers"] as const;

const flags = {
  parts: {
    type: "string",
    valueHint: "LIST",
    description: `Of ${partNames.join(", ")}. Default: all.`,
  },
  kills: { type: "string", valueHint: "N", description: "Kills, 1 to 100. Default: 20." },
  help: sharedFlags.help,
} as const satisfies ArgsDef;

const help = {
  usage: "basedxl bench serve [flags]",
  summary: "Measures the server from outside, on CPU ranks with the bundled model.",
  examples: ["basedxl bench serve", "basedxl bench serve --parts share"],
  groups: [["Flags", ["parts", "kills", "help"]]] as const,
  notes: [],
};

/** What is measured, and whether its limit holds. */
interface Row {
  what: string;
  value: string;
  limit: string;
  holds: boolean;
}

export async function run(args: string[]): Promise<number> {
  const given = readFlags(args, flags);
  if (given.help) {
    process.stdout.write(renderHelp(help, flags));
    return 0;
  }
  const killCount = wholeOf(given, "kills", { min: 1, max: 100 }) ?? 20;
  const measures = {
    added,
    health,
    share,
    batch,
    cancel,
    kills: () => kills(killCount),
    workers: () => workerKills(killCount),
  };
  const rows: Row[] = [];
  for (const name of namesOf(given, "parts", partNames) ?? partNames) {
    rows.push(...(await measures[name]()));
  }
  const cells = rows.map(({ what, value, limit, holds }) => {
    return [what, value, limit, holds ? "yes" : "no"];
  });
  process.stdout.write(renderTable(["what", "measured", "limit", "holds"], cells));
  return rows.every(({ holds }) => holds) ? 0 : 1;
}

// --- internal ---

const onCpu = ["--device", "cpu"];
const addedMsMax = 10;
const healthMsMax = 50;

async function withFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-bench-serve-"));
  try {
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function withServer<T>(
  args: readonly string[],
  use: (server: ServeProcess) => Promise<T>,
): Promise<T> {
  return await withFolder(async (folder) => {
    await using server = await ServeProcess.start(folder, [...onCpu, ...args]);
    await server.isReady();
    return await use(server);
  });
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
}

/** The same image by the API and by the server, in turns; both write it. */
async function added(): Promise<Row[]> {
  return await withServer([], async (server) => {
    await using pipeline = await Pipeline.open({ devices: { device: "cpu" } });
    const path = join(tmpdir(), `basedxl-bench-${crypto.randomUUID()}.png`);
    const alone = async () => {
      const { images } = await pipeline.generate({ stepCount: 4, seeds: [7n] });
      await writeImage(path, images[0]!);
    };
    const served = async () => {
      const { id } = await server.submit({ num_inference_steps: 4, seed: 7 });
      await server.ended(id);
    };
    const times: { alone: number[]; served: number[] } = { alone: [], served: [] };
    for (let round = 0; round < 24; round++) {
      times.alone.push(await timed(alone));
      times.served.push(await timed(served));
    }
    rmSync(path);
    const [own, other] = [medianMs(times.alone.slice(4)), medianMs(times.served.slice(4))];
    return [limited("added to an image, ms", other - own, addedMsMax)];
  });
}

async function health(): Promise<Row[]> {
  return await withServer([], async (server) => {
    const ids: string[] = [];
    for (let seed = 0; seed < 6; seed++) {
      ids.push((await server.submit({ num_inference_steps: 10, seed })).id);
    }
    let isDone = false;
    const all = Promise.all(ids.map((id) => server.ended(id))).finally(() => {
      isDone = true;
    });
    const times: number[] = [];
    while (!isDone) {
      times.push(await timed(() => server.fetch("/health")));
      await Bun.sleep(5);
    }
    await all;
    times.sort((a, b) => a - b);
    const p99 = times[Math.floor(times.length * 0.99)]!;
    return [limited(`/health while generating, p99 of ${times.length}, ms`, p99, healthMsMax)];
  });
}

/** Seconds to the end of one job, and of eight that come at once, on four CPU ranks. */
async function share(): Promise<Row[]> {
  const rows: Row[] = [];
  for (const name of ["4", "2x2", "1x4", "auto"]) {
    const args = ["--gpus", "4", "--share", name];
    const [one, eight] = await withServer(args, async (server) => {
      const jobs = async (count: number) => {
        const seeds = Array.from({ length: count }, (_, seed) => seed);
        const request = (seed: number) => ({ num_inference_steps: 8, seed });
        const sent = await Promise.all(seeds.map((seed) => server.submit(request(seed))));
        await Promise.all(sent.map(({ id }) => server.ended(id)));
      };
      await jobs(1);
      await jobs(4);
      return [await timed(() => jobs(1)), await timed(() => jobs(8))];
    });
    rows.push(shown(`--share ${name}: one image, s`, one! / 1000));
    rows.push(shown(`--share ${name}: eight images, s`, eight! / 1000));
  }
  return rows;
}

/** Eight jobs that are alike, one by one and four together. */
async function batch(): Promise<Row[]> {
  const rows: Row[] = [];
  for (const count of [1, 4]) {
    const ms = await withServer(["--batch-jobs", String(count)], async (server) => {
      const jobs = async () => {
        const seeds = Array.from({ length: 9 }, (_, seed) => seed);
        const sent: { id: string }[] = [];
        for (const seed of seeds) {
          const prompt = "a red house left of a green tree on the grass";
          sent.push(await server.submit({ prompt, num_inference_steps: 8, seed }));
        }
        await Promise.all(sent.map(({ id }) => server.ended(id)));
      };
      await jobs();
      return await timed(jobs);
    });
    rows.push(shown(`--batch-jobs ${count}: an image of nine jobs, s`, ms / 9000));
  }
  return rows;
}

/** From the request to the last event, against the time of a step. */
async function cancel(): Promise<Row[]> {
  return await withServer([], async (server) => {
    const times: number[] = [];
    let stepMs = 0;
    let memory = 0;
    for (let round = 0; round < 24; round++) {
      // What the first ones leave is the program's own, compiled and warm.
      if (round === 16) memory = usageOf(server.pid).residentBytes;
      const { id } = await server.submit({ num_inference_steps: 500, seed: round });
      for (;;) {
        const { progress } = await server.job(id);
        stepMs = Math.max(stepMs, (progress?.secondsPerStep ?? 0) * 1000);
        if ((progress?.step ?? 0) >= 3) break;
        await Bun.sleep(5);
      }
      await server.fetch(`/api/v1/jobs/${id}`, { method: "DELETE" });
      times.push(await timed(() => server.ended(id)));
    }
    const growth = usageOf(server.pid).residentBytes / memory;
    return [
      limited("cancel, median, ms (limit: a step and 10)", medianMs(times), stepMs + 10),
      limited("memory after 24 cancelled jobs, of that after 16", growth, 1.05),
    ];
  });
}

async function kills(killCount: number): Promise<Row[]> {
  return await withFolder(async (folder) => {
    const options = { jobCount: killCount, killCount, random: Math.random };
    const problems = await killWhileGenerating(folder, options);
    for (const problem of problems) process.stderr.write(`${problem}\n`);
    return [
      limited(`jobs lost, images twice, files broken in ${killCount} kills`, problems.length, 0),
    ];
  });
}

/** Needs a Redis on the PATH. */
async function workerKills(killCount: number): Promise<Row[]> {
  const command = findRedis();
  if (command === null) {
    process.stderr.write("Skipped: no redis-server or valkey-server on the PATH.\n");
    return [];
  }
  await using redis = await RedisProcess.start(command);
  return await withFolder(async (folder) => {
    const outputs = { workers: join(folder, "workers"), alone: join(folder, "alone") };
    const options = { queue: redis.url, killCount, random: Math.random };
    const problems = await killWorkers(outputs, options);
    for (const problem of problems) process.stderr.write(`${problem}\n`);
    const what = `jobs lost, images twice, broken or others in ${killCount} kills of workers`;
    return [limited(what, problems.length, 0)];
  });
}

function limited(what: string, value: number, limit: number): Row {
  const places = limit < 10 ? 3 : 1;
  return {
    ...{ what, value: value.toFixed(places), limit: limit.toFixed(places) },
    holds: value <= limit,
  };
}

function shown(what: string, value: number): Row {
  return { what, value: value.toFixed(2), limit: "-", holds: true };
}
