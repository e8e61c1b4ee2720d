/**
 * Answers of the hub, without a socket: lists of repositories and what is chosen from them; and
 * contents, whose headers say which bytes of a file they are.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fetchBlob } from "../../../src/hub/blob.ts";
import { RepositoryCache } from "../../../src/hub/cache.ts";
import { shardNames } from "../../../src/hub/cached.ts";
import { chooseFiles } from "../../../src/hub/choose.ts";
import { type HubClient, Interrupted, openTransfer } from "../../../src/hub/http.ts";
import { type HubFile, listRepository } from "../../../src/hub/listing.ts";
import { parseJson } from "../../../src/models/json.ts";
import { mutateJson, mutateText } from "../mutate.ts";
import type { Random } from "../random.ts";
import { target } from "../target.ts";

interface Answer {
  status: number;
  headers: [string, string][];
  body: string;
}

const commit = "0123456789abcdef0123456789abcdef01234567";
const listing = [
  { type: "file", path: "model_index.json", size: 10, oid: commit },
  { type: "directory", path: "unet", size: 0, oid: commit },
  { type: "file", path: "unet/config.json", size: 10, oid: commit },
  {
    ...{ type: "file", path: "unet/diffusion_pytorch_model.safetensors", size: 100, oid: commit },
    lfs: { oid: "ab".repeat(32), size: 100, pointerSize: 130 },
  },
];
const info = { id: "a/b", modelId: "a/b", sha: commit, private: false, downloads: 1, likes: 1 };
const index = { metadata: {}, weight_map: { a: "diffusion_pytorch_model-1.safetensors" } };

const json = (body: string): Answer => ({
  ...{ status: 200, body },
  headers: [["Content-Type", "application/json"]],
});
const client: HubClient = {
  settings: {
    ...{ endpoint: "http://hub.test", token: "t", tokenSource: "HF_TOKEN" },
    ...{ pauseMs: 0, timeoutMs: 10_000 },
  } as never,
  signal: undefined,
  say() {},
};

export const hubTarget = target(
  "hub",
  (random) => {
    const which = random.below(5);
    const keys = ["lfs", "xetHash", "path", "oid", "size", "sha", "type"];
    const list = which === 0 ? JSON.stringify(listing) : mutateJson(random, listing, keys);
    const answers = [json(which === 0 ? mutateJson(random, info, keys) : JSON.stringify(info))];
    // Lists have pages, whose next one a header names.
    if (random.once(10)) answers.push({ ...oddAnswer(random), status: 200, body: "[]" });
    answers.push(random.once(20) ? { ...oddAnswer(random), body: list } : json(list));
    return { answers, index: random.once(4) ? mutateJson(random, index) : JSON.stringify(index) };
  },
  async ({ answers, index: text }) => {
    await answering(answers, async () => {
      const found = await listRepository(client, "a/b", "main");
      const shardsOf = async () => shardNames(parsed(text));
      const reference = { id: "a/b", revision: undefined, file: undefined };
      await chooseFiles(reference, "model", found, {
        ...{ shardsOf, jsonOf: async () => null },
        isHere: () => false,
      });
    });
  },
);

const content = "0123456789".repeat(4);
const hash = new Bun.CryptoHasher("sha256").update(content).digest("hex");
const file: HubFile = { name: "a.safetensors", bytes: content.length, etag: hash, isLfs: true };
const folder = mkdtempSync(join(tmpdir(), "basedxl-fuzz-"));
const cache = new RepositoryCache(folder, "a/b");
cache.prepare();
const url = "http://hub.test/a/b/resolve/main/a.safetensors";
const wanted = { id: "a/b", revision: "main" };

export const transferTarget = target(
  "transfers",
  (random) => {
    const count = 1 + random.below(3);
    return {
      // Files take most of the time.
      isFile: random.once(24),
      answers: Array.from({ length: count }, () => oddAnswer(random)),
    };
  },
  async ({ isFile, answers }) => {
    // At last the hub is as it should be.
    await answering([...answers, whole, whole], async () => {
      if (!isFile) {
        const transfer = await openTransfer(client, url, wanted, {}, [416]);
        for await (const _ of transfer.chunks());
        return;
      }
      rmSync(cache.blob(hash), { force: true });
      rmSync(`${cache.blob(hash)}.incomplete`, { force: true });
      await fetchBlob(client, cache, { file, url, wanted }, () => {});
      const kept = await Bun.file(cache.blob(hash)).text();
      if (kept !== content) throw new Error(`kept as a whole: ${kept}`);
    });
  },
);

// --- internal ---

const whole: Answer = { status: 200, headers: [], body: content };
const usual = [200, 206, 302];
const statuses = [200, 204, 206, 301, 302, 304, 307, 401, 403, 404, 416, 429, 503];
const headers: readonly [name: string, text: string][] = [
  ...[
    ["Content-Range", "bytes 0-39/40"],
    ["Content-Range", "bytes 10-39/*"],
  ],
  ...[
    ["ETag", 'W/"a"'],
    ["ETag", '"b"'],
  ],
  ...[
    ["X-Linked-ETag", `"${hash}"`],
    ["X-Linked-ETag", '"c"'],
  ],
  ...[
    ["Location", "/a/b/c"],
    ["Location", "https://cdn.test:8443/x?y#z"],
  ],
  ...[
    ["Retry-After", "0"],
    ["Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT"],
  ],
  ...[
    ["Content-Type", "text/html"],
    ["Content-Length", "40"],
  ],
  ...[
    ["X-Error-Code", "GatedRepo"],
    ["X-Error-Message", "no"],
  ],
  ["Link", '<http://hub.test/next>; rel="next"'],
] as [string, string][];
const pieces = ["-", "/", "*", "bytes ", '"', "W/", "0", "9", "<", ">;", "http://", "file://", ":"];

function oddAnswer(random: Random): Answer {
  const count = random.below(4);
  const given = Array.from({ length: count }, (): [string, string] => {
    const [name, text] = random.pick(headers);
    const odd = random.once(2) ? mutateText(random, text, pieces) : text;
    return [name, visible(name === "Retry-After" ? withoutWait(odd) : odd)];
  });
  const body = random.pick([
    "",
    "{}",
    "<html>",
    content,
    content,
    content.slice(10),
    "x".repeat(99),
  ]);
  const status = random.pick(random.once(3) ? statuses : usual);
  return { status, headers: given, body };
}

/** What fetch lets through. */
function visible(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, "").trim();
}

/** A case must not wait for seconds. */
function withoutWait(text: string): string {
  const seconds = Number(text);
  const waitMs = Number.isNaN(seconds) ? Date.parse(text) - Date.now() : seconds * 1000;
  return waitMs > 0 && waitMs <= 60_000 ? "0" : text;
}

function parsed(text: string): unknown {
  try {
    return parseJson(text);
  } catch {
    return null;
  }
}

/** Runs `step` where a request gets the next of `answers`; after them there is none. */
async function answering(answers: readonly Answer[], step: () => Promise<void>): Promise<void> {
  const rest = [...answers];
  const { fetch } = globalThis;
  const answer = async () => {
    const { status, headers, body } = rest.shift() ?? json("[]");
    const isEmpty = status === 204 || status === 304;
    return new Response(isEmpty ? null : body, { status, headers });
  };
  globalThis.fetch = answer as unknown as typeof fetch;
  try {
    await step();
  } catch (error) {
    if (error instanceof Interrupted) throw error.refusal;
    throw error;
  } finally {
    globalThis.fetch = fetch;
  }
}
