/**
 * A short soak: what pipelines of one process hold after mixed images, some by pipelines that are
 * opened and closed. Memory is that of `bun run bench soak`: forty images do not fill what is kept.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { soakSessions } from "../../src/bench/support/soak-parts.ts";
import { writeSoakLoras } from "../../src/bench/support/soak-requests.ts";

// The cores may be busy.
setDefaultTimeout(120_000);

test.skipIf(process.platform !== "linux")("images leave no threads and no handles", async () => {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-soak-"));
  try {
    await writeSoakLoras(folder);
    const isRead = (count: number) => count === 20;
    const [first, last] = await soakSessions({ folder, imageCount: 40, isRead });
    // Two pipelines of up to four ranks were opened and closed in between.
    // The runtime's own threads come and go.
    expect(last!.threadCount).toBeLessThan(first!.threadCount + 5);
    expect(last!.handleCount).toBeLessThan(first!.handleCount + 5);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
