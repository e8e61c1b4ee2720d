/**
 * A few hundred cases of each target of `bun run fuzz`, and the cases that it once found: objects
 * whose toString is no function, rows and messages that nobody wrote.
 */
import { Database } from "bun:sqlite";
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { PeerGroup } from "../../src/distributed/peer-group.ts";
import { differenceOf } from "../../src/distributed/settings.ts";
import { parseForeign } from "../../src/metadata/foreign-json.ts";
import { recipeOfComfyUi } from "../../src/metadata/from-comfyui.ts";
import { recipeOfSwarmUi } from "../../src/metadata/from-swarmui.ts";
import { parseSchedulerConfig } from "../../src/models/config.ts";
import { ConfigReader } from "../../src/models/config-reader.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { openControl } from "../../src/networks/identify.ts";
import { specText } from "../../src/serve/jobs/spec-text.ts";
import { JobStore } from "../../src/serve/jobs/store.ts";
import { parseAxes } from "../../src/sheets.ts";
import { suggestion } from "../../src/terminal/flags.ts";
import { MemoryWatch } from "../fuzz/memory.ts";
import { reportOf, stateOfReport, writeState } from "../fuzz/progress.ts";
import { openTarget, targetNames } from "../fuzz/targets.ts";
import { runCase } from "../fuzz/worker.ts";
import { controlConfig } from "../support/control-networks.ts";
import { dialectApp } from "../support/dialect-app.ts";
import { refusal } from "../support/refusal.ts";
import { safetensorsBytes } from "../support/safetensors-bytes.ts";
import { seed, seedName } from "../support/seed.ts";

// The cores may be busy.
setDefaultTimeout(60_000);

describe(seedName, () => {
  test.each(targetNames)("300 cases of %s", async (name) => {
    const target = await openTarget(name);
    for (let index = 0; index < 300; index++) {
      expect([index, await runCase(target, seed, index)]).toEqual([index, null]);
    }
  });
});

describe("the command", () => {
  test("finds what cases leave behind, and no cache that is filled once", async () => {
    const sizes = [1, 30, 40, 70, 71].map((mebibytes) => mebibytes << 20);
    const watch = new MemoryWatch(async () => sizes.shift() ?? 0);
    const found: [number, string][] = [];
    for (let count = 1; count <= 400_000; count++) {
      const leak = await watch.afterCase();
      if (leak !== null) found.push([count, leak]);
    }
    expect(found).toEqual([[100_000, expect.stringContaining("it leaks")]]);
  });

  test("writes a table of what several runs have done", async () => {
    const [a, b, c] = [0, 1, 2].map(() => mkdtempSync(join(tmpdir(), "basedxl-report-")));
    const progress = { seconds: 2.4, crashes: [], commits: ["0123abcd"] };
    writeState(a!, 1, { prompts: { ...progress, next: 10 }, texts: { ...progress, next: 3 } });
    writeState(b!, 1, { prompts: { ...progress, next: 10_000_000 } });
    const crashes = [7, 9].map((index) => ({ index, reason: "it hangs" }));
    writeState(b!, 2, { prompts: { ...progress, next: 8, crashes } });
    const isCrash = async (_: string, __: number, index: number) => index === 7;
    const report = await reportOf([a!, b!], ["texts", "prompts", "images"], isCrash);
    expect(report.trim().split("\n").slice(-3)).toEqual([
      "| texts | 1 | 3 | 2 | 0 | 0123abcd |",
      "| prompts | 1 | 10,000,000 | 2 | 0 | 0123abcd |",
      "| prompts | 2 | 8 | 2 | 7 (1 not repeated) | 0123abcd |",
    ]);
    for (const folder of [a!, b!]) rmSync(folder, { recursive: true });

    // Another machine goes on from the table, which keeps the rows of what that has not done.
    expect(stateOfReport(report, 2)).toEqual({
      prompts: {
        ...{ next: 8, seconds: 2, commits: ["0123abcd"], mendedCount: 1 },
        crashes: [{ index: 7, reason: "case 7" }],
      },
    });
    writeState(c!, 1, { texts: { ...stateOfReport(report, 1).texts!, next: 5 } });
    const later = await reportOf([c!], ["texts", "prompts"], isCrash, report);
    expect(later).toBe(report.replace("| texts | 1 | 3 |", "| texts | 1 | 5 |"));
    rmSync(c!, { recursive: true });
  });
});

describe("what fuzzing found", () => {
  const odd = { toString: 1, valueOf: 1 };

  test("objects in the place of names are no error of the server", async () => {
    const { post } = dialectApp();
    for (const path of ["/history", "/queue"]) {
      expect((await post(path, { delete: [odd] })).status).toBe(200);
    }
    const prompt = { 3: { class_type: odd, inputs: {} } };
    expect((await post("/prompt", { prompt })).status).toBe(400);
    expect((await post("/sdapi/v1/img2img", { init_images: [odd] })).status).toBeLessThan(500);
  });

  test("objects in the place of values of an image are left out", () => {
    const swarm = { sui_image_params: { prompt: "a", steps: odd, loras: [odd] } };
    expect(recipeOfSwarmUi(swarm)?.settings.stepCount).toBeUndefined();
    const nodes = { 3: { class_type: "KSampler", inputs: { model: [odd, 0], seed: odd } } };
    expect(() => recipeOfComfyUi(nodes)).not.toThrow();
    expect(parseForeign("[".repeat(100_000))).toBeNull();
  });

  test("a process that ends without a reason is told of in a sentence", () => {
    const peers = new PeerGroup(1, () => "Process 0");
    peers.receive(0, { ended: " " });
    expect(peers.failure?.message).toBe("No reason was given.");
  });

  test("settings of a process may have any names", () => {
    const theirs = JSON.parse('{"__proto__":"a"}');
    expect(differenceOf({}, theirs, 1)).toContain("__proto__ (a and not known)");
  });

  test("blocks of a ControlNet are names, whatever its config has there", async () => {
    const folder = mkdtempSync(join(tmpdir(), "basedxl-control-"));
    const weights = safetensorsBytes({ "conv_in.weight": [1] });
    writeFileSync(join(folder, "diffusion_pytorch_model.safetensors"), weights);
    const model = await openModelFolder(goldenModel);
    for (const blocks of [5, "DownBlock2D", [1], [null]]) {
      const config = { ...controlConfig("plain"), down_block_types: blocks };
      writeFileSync(join(folder, "config.json"), JSON.stringify(config));
      const sentence = await refusal(async () => await openControl(folder, model), "bad-model");
      expect(sentence).toContain("config.json: down_block_types is ");
    }
    rmSync(folder, { recursive: true });
  });

  test("messages are escaped where they are made", async () => {
    const axes = await refusal(() => parseAxes("steps=1\u0085\u009b2J"), "bad-option");
    expect(axes).toContain("\\u0085\\u009b2J");
    expect(suggestion("bold", ["bo\u0000ld"])).toBe(" Did you mean bo\\u0000ld?");
    const json = { "<\u0000>": "" };
    const tokens = new ConfigReader("FILE", json);
    const added = await refusal(() => tokens.required("<\u0000>", v.number()), "bad-model");
    expect(added).toContain("<\\u0000> is");
    const config = { _class_name: "EulerDiscreteScheduler", num_train_timesteps: "\u001b[2J\n" };
    const scheduler = await refusal(() => parseSchedulerConfig("FILE", config), "bad-model");
    expect(scheduler).not.toMatch(/\p{Cc}/u);
  });

  test("a store goes on without jobs of another version; a damaged one is refused", async () => {
    const folder = mkdtempSync(join(tmpdir(), "basedxl-store-"));
    const path = join(folder, "jobs.sqlite");
    const spec = { request: { prompt: "a" }, client: "c", dialect: "own" } as const;
    const job = { state: "queued", startedAt: null, endedAt: null, attempts: 0 } as const;
    const store = JobStore.open(path);
    for (const id of ["1", "2", "3", "4", "5"]) {
      store.add({ ...job, ...{ id, createdAt: 1, spec, images: [], warnings: [], error: null } });
    }
    store.close();
    const database = new Database(path);
    database.run('UPDATE jobs SET spec = \'{"request":{"gone":1}}\' WHERE id = 1');
    database.run("UPDATE jobs SET warnings = 'x' WHERE id = 2");
    database.run("UPDATE jobs SET spec = 'null' WHERE id = 4");
    const inputs = { image: "../../etc/passwd", mask: null };
    const outside = specText({ ...spec, inputs });
    database.run("UPDATE jobs SET spec = ? WHERE id = 5", [outside]);
    database.close();
    const again = JobStore.open(path);
    expect(again.unfinished().map(({ id }) => id)).toEqual(["3"]);
    expect(again.list({}).map(({ id }) => id)).toEqual(["3"]);
    again.close();
    const bytes = await Bun.file(path).bytes();
    writeFileSync(path, bytes.fill(0xaa, 4096, 8192));
    const sentence = await refusal(() => JobStore.open(path), "io");
    expect(sentence).toMatch(/cannot be opened: .*(damaged|malformed|disk image)/);
    rmSync(folder, { recursive: true });
  });
});
