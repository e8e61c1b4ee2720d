/**
 * What is held of a server under a fault: how the job ends, that the next one works, that no file
 * is broken, and that another server of the same folder has every job.
 */
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hitsOf } from "./run.ts";
import { FaultyServer, imagesIn, type JobEnd, type ServerDevice } from "./server.ts";
import type { ServerRow } from "./server-rows.ts";

/** Steps enough that something can happen meanwhile. */
const long = { num_inference_steps: 150 };

/** Empty where all is as it should be. */
export async function serverProblems(row: ServerRow): Promise<string[]> {
  const { device = "cpu" } = row;
  const right = await rightImages(device);
  const folder = mkdtempSync(join(tmpdir(), "basedxl-fault-"));
  try {
    const run = FaultyServer.prepare(folder, device);
    const env = { ...run.env };
    cpSync(join(folder, "model"), join(folder, "kept"), { recursive: true });
    row.apply?.(run);
    const problems = await problemsUnder(row, run);
    const isMissed = hitsOf(run).some((count) => count === 0);
    if (isMissed && row.during === undefined) problems.push("the fault did not strike");
    rmSync(join(folder, "model"), { recursive: true, force: true });
    cpSync(join(folder, "kept"), join(folder, "model"), { recursive: true });
    Object.assign(run, { env, calls: [], library: {}, disk: null });
    const other = await FaultyServer.start(run);
    problems.push(...wrongEnd(await other.job(), { state: "done" }, "of the next server"));
    problems.push(...(await unfinished(other)));
    await other.stop();
    const broken = imagesIn(folder).filter((image) => !right.has(image));
    return broken.length === 0 ? problems : [...problems, `files are left: ${broken}`];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

// --- internal ---

const known = new Map<ServerDevice, Promise<Set<string>>>();

/** Hashes of the images of both kinds of jobs; only the short one takes seconds on the emulator. */
function rightImages(device: ServerDevice): Promise<Set<string>> {
  const images = known.get(device) ?? draw(device, device === "cpu" ? [{}, long] : [{}]);
  known.set(device, images);
  return images;
}

async function draw(device: ServerDevice, jobs: Record<string, unknown>[]): Promise<Set<string>> {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-fault-"));
  const server = await FaultyServer.start(FaultyServer.prepare(folder, device));
  for (const job of jobs) await server.job(job);
  await server.stop();
  const images = new Set(imagesIn(folder));
  rmSync(folder, { recursive: true, force: true });
  return images;
}

/** How the first server and its jobs end. */
async function problemsUnder(row: ServerRow, run: FaultyServer["run"]): Promise<string[]> {
  const { ends } = row;
  if (ends instanceof RegExp) {
    const reason = await FaultyServer.start(run).then(
      async (server) => `it starts (${await server.stop()})`,
      (error: Error) => error.message,
    );
    return ends.test(reason) ? [] : [reason];
  }
  const server = await FaultyServer.start(run);
  await row.before?.(server);
  const isBusy = row.during !== undefined || row.signal !== undefined;
  const first = await server.submit(isBusy ? long : {});
  const { id, error } = (await first.json()) as { id: string; error: JobEnd["error"] };
  if (isBusy) await begun(server, id);
  await row.during?.(server);
  if (row.signal !== undefined) {
    const code = await server.stop(row.signal);
    return code === 143 || code === 137 ? [] : [`the server ends with ${code}`];
  }
  const end =
    first.status === 202 ? await server.ended(id) : { state: "refused", error, images: [] };
  row.mend?.(server);
  const next = row.lasts ? null : await server.job();
  const code = await server.stop();
  return [
    ...wrongEnd(end, ends, ""),
    ...(next === null ? [] : wrongEnd(next, { state: "done" }, "of the next job")),
    ...(code === 143 ? [] : [`the server ends with ${code}`]),
  ];
}

async function begun(server: FaultyServer, id: string): Promise<void> {
  for (let i = 0; i < 1000; i++) {
    const { state } = (await (await server.fetch(`/api/v1/jobs/${id}`)).json()) as JobEnd;
    if (state !== "queued") return;
    await Bun.sleep(2);
  }
}

function wrongEnd(
  { state, error }: JobEnd,
  wanted: { state: string; error?: RegExp },
  whose: string,
): string[] {
  const isRight = new RegExp(`^(${wanted.state})$`).test(state);
  const isSaid = state === "done" || wanted.error?.test(error?.message ?? "") === true;
  return isRight && isSaid ? [] : [`the job ${whose} is ${state}: ${error?.message}`];
}

/** Jobs that have not ended although nothing else runs. */
async function unfinished(server: FaultyServer): Promise<string[]> {
  const { jobs } = (await (await server.fetch("/api/v1/jobs?limit=1000")).json()) as {
    jobs: { id: string; state: string }[];
  };
  const problems: string[] = [];
  for (const { id } of jobs) {
    const { state } = await server.ended(id);
    if (state === "queued" || state === "running") problems.push(`job ${id} is ${state}`);
  }
  return problems;
}
