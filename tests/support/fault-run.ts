/**
 * Writes files under a fault, as a program of its own: `write FOLDER COUNT` replaces images in a
 * folder again and again, `store FOLDER` adds jobs to a store until its disk is full. What was
 * refused is written to standard output, a sentence a line.
 */
import { join } from "node:path";
import { writeWhole } from "../../src/image/files.ts";
import { JobStore } from "../../src/serve/jobs/store.ts";

const [what, folder = ".", count = "1"] = process.argv.slice(2);
const say = (line: string) => void process.stdout.write(`${line}\n`);
if (what === "write") await writeImages();
else fillStore();

/** Every file has one byte, the same everywhere, and a length that the byte decides. */
async function writeImages(): Promise<void> {
  say("begun");
  for (let i = 0; i < Number(count); i++) {
    const bytes = new Uint8Array(((i % 50) + 1) * 4096).fill((i % 50) + 1);
    try {
      await writeWhole(join(folder, `${i % 5}.png`), bytes);
    } catch (error) {
      say((error as Error).message);
    }
  }
}

function fillStore(): void {
  const store = JobStore.open(join(folder, "jobs.sqlite"));
  const spec = { request: { prompt: "a".repeat(10_000) }, client: "c", dialect: "own" } as const;
  const job = { state: "queued", startedAt: null, endedAt: null, attempts: 0 } as const;
  let added = 0;
  try {
    for (; added < 1000; added++) {
      const id = String(added).padStart(4, "0");
      store.add({ ...job, ...{ id, createdAt: 1, spec, images: [], warnings: [], error: null } });
    }
  } catch (error) {
    say(`full: ${(error as Error).message}`);
  }
  say(`${store.unfinished().length === added ? "all are there" : "some are lost"}: ${added}`);
  store.close();
}
