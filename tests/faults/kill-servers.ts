/**
 * Servers that are killed at any moment, one after the other in the same folder.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Random } from "../fuzz/random.ts";
import { FaultyServer, imagesIn } from "./server.ts";

const withinMs = 700;
const files = [".basedxl-jobs.sqlite", ".basedxl-*.tmp"];

/** Resolves to what is wrong after `count` kills; empty where every job is done and whole. */
export async function killServers(count: number, random: Random): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-kill-"));
  const run = FaultyServer.prepare(folder);
  run.args.push("--max-attempts", "100");
  const ids: string[] = [];
  for (let kill = 0; kill < count; kill++) {
    run.calls = random.once(2) ? [] : [callOf(random, join(folder, "out"))];
    const server = await FaultyServer.start(run).catch(() => null);
    // Killed before it listened.
    if (server === null) continue;
    for (let i = 0; i < 2; i++) {
      const answer = await server.submit().catch(() => null);
      if (answer?.status === 202) ids.push(((await answer.json()) as { id: string }).id);
    }
    await Promise.race([server.child.exited, Bun.sleep((random.below(1000) / 1000) * withinMs)]);
    await server.stop("SIGKILL");
  }
  run.calls = [];
  const server = await FaultyServer.start(run);
  const problems: string[] = [];
  const { id } = (await (await server.submit()).json()) as { id: string };
  const [whole = "none", ...images] = await imagesOf(server, [id, ...ids]);
  for (const [index, image] of images.entries())
    if (image !== whole) problems.push(`job ${index} has ${image}`);
  const { jobs } = (await (await server.fetch("/api/v1/jobs?limit=1000")).json()) as JobList;
  // Those of which the client was not told any more have theirs, too.
  const unlike = jobs.filter(({ images }) => images.length !== 1);
  problems.push(...unlike.map(({ id, state }) => `job ${id} is ${state}, not with one image`));
  await server.stop();
  const written = imagesIn(folder).filter((image) => image !== "temporary");
  if (written.length !== jobs.length) problems.push(`${written.length} images of ${jobs.length}`);
  const others = written.filter((image) => image !== whole);
  problems.push(...others.map((image) => `${image} is broken`));
  rmSync(folder, { recursive: true });
  return problems;
}

// --- internal ---

interface JobList {
  jobs: { id: string; state: string; images: unknown[] }[];
}

function callOf(random: Random, out: string): string {
  const call = random.pick(["write", "write", "sync", "open", "rename"]);
  return `${call}:kill:${1 + random.below(90)}:1:${join(out, random.pick(files))}`;
}

/** The hash of each job's image, or its state where it has none. */
async function imagesOf(server: FaultyServer, ids: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const id of ids) {
    const { state, images } = await server.ended(id);
    const [image] = images;
    const bytes =
      image && (await server.fetch(`/api/v1/jobs/${id}/images/0`).then((r) => r.bytes()));
    found.push(state === "done" && bytes ? Bun.hash(bytes).toString(36) : state);
  }
  return found;
}
