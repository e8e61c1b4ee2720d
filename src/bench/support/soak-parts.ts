/**
 * The parts of the soak: many images in one process, by pipelines and by a server, and what the
 * process holds now and then.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { writeImage } from "../../metadata.ts";
import { Pipeline } from "../../pipeline.ts";
import { requestToJson } from "../../settings/request-schema.ts";
import { type ProcessUsage, usageOf } from "./process-usage.ts";
import { ServeProcess } from "./serve-process.ts";
import { soakRankCounts, soakRequest } from "./soak-requests.ts";

export interface SoakReading extends ProcessUsage {
  /** Images so far. */
  imageCount: number;
}

interface SoakOptions {
  /** Of `writeSoakLoras`; images are written beside them. */
  folder: string;
  imageCount: number;
  /** Whether the process is looked at after so many images. */
  isRead: (imageCount: number) => boolean;
  onReading?: (reading: SoakReading) => void;
}

/**
 * In this process: a pipeline of each rank count, which stays open to the end. Every tenth image is
 * that of another one, which is opened for it and closed.
 */
export async function soakSessions(options: SoakOptions): Promise<SoakReading[]> {
  const { folder } = options;
  const open = (rankCount: number) =>
    Pipeline.open({ devices: { device: "cpu", rankCount }, modelsDir: folder });
  await using pipelines = new AsyncDisposableStack();
  const opened: Pipeline[] = [];
  for (const rankCount of soakRankCounts) opened.push(pipelines.use(await open(rankCount)));
  const path = join(folder, "image.png");
  return await soak(options, {
    async generate(number) {
      const { seed, ...request } = soakRequest(number);
      const generateWith = async (pipeline: Pipeline) => {
        const { images } = await pipeline.generate({ ...request, seeds: [seed!] });
        await writeImage(path, images[0]!);
        rmSync(path);
      };
      const place = number % opened.length;
      if (number % 10 !== 9) return await generateWith(opened[place]!);
      await using pipeline = await open(soakRankCounts[place]!);
      await generateWith(pipeline);
    },
    async usage() {
      for (let i = 0; i < 3; i++) {
        Bun.gc(true);
        await Bun.sleep(settleMs / 3);
      }
      return usageOf(process.pid);
    },
  });
}

/** A server of two ranks, which gets one job after the other. */
export async function soakServer(options: SoakOptions): Promise<SoakReading[]> {
  const { folder } = options;
  const args = ["--device", "cpu", "--gpus", "2", "--share", "2", "--models-dir", folder];
  await using server = await ServeProcess.start(join(folder, "outputs"), args);
  await server.isReady();
  return await soak(options, {
    async generate(number) {
      const { id } = await server.submit(requestToJson(soakRequest(number)));
      const { state } = await server.ended(id);
      if (state !== "done") throw new Error(`Job ${number} is ${state}.`);
    },
    async usage() {
      await Bun.sleep(settleMs);
      return usageOf(server.pid);
    },
  });
}

// --- internal ---

/** Until a server without jobs has collected its garbage, and allocators have given back pages. */
const settleMs = 2000;

interface Soaked {
  generate(number: number): Promise<void>;
  usage(): Promise<ProcessUsage>;
}

async function soak(
  { imageCount, isRead, onReading = () => {} }: SoakOptions,
  { generate, usage }: Soaked,
): Promise<SoakReading[]> {
  const readings: SoakReading[] = [];
  for (let number = 0; number < imageCount; number++) {
    await generate(number);
    const count = number + 1;
    if (!isRead(count) && count < imageCount) continue;
    const reading = { imageCount: count, ...(await usage()) };
    readings.push(reading);
    onReading(reading);
  }
  return readings;
}
