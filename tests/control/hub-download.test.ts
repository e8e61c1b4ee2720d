/**
 * Downloads from a hub that breaks off, lies, refuses and stalls: what arrives is whole and has the
 * right hash, or nothing looks like it. Each test has a cache of its own.
 */
import { afterAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { BasedXLError } from "../../src/errors.ts";
import type { HubSettings } from "../../src/hub/settings.ts";
import { type HubOptions, hubReference, openHubModel } from "../../src/hub.ts";
import { random } from "../support/hub-bytes.ts";
import {
  etagOf,
  type Fault,
  type HubRequest,
  settingsFor,
  sha256,
  startHubServer,
} from "../support/hub-server.ts";
import { refusal } from "../support/refusal.ts";

// Megabytes are sent and hashed, which takes long on a machine that builds something else.
setDefaultTimeout(60_000);

const server = await startHubServer();
const top = mkdtempSync(join(tmpdir(), "basedxl-hub-"));
afterAll(() => {
  server.stop();
  rmSync(top, { recursive: true, force: true });
});

const commit = "0123456789abcdef0123456789abcdef01234567";
const weights = random(3_000_000, 1);
const single = { commit, files: { "README.md": random(100, 2), "model.safetensors": weights } };
let cache = "";
let lines: string[] = [];

beforeEach(() => {
  cache = mkdtempSync(join(top, "cache-"));
  lines = [];
  server.requests.length = 0;
  server.sentBytes = 0;
  server.fault = () => undefined;
  server.pageLength = 1000;
  server.repositories.clear();
  server.repositories.set("org/single", single);
});

function settings(changes: Partial<HubSettings> = {}): HubSettings {
  return settingsFor(server, cache, changes);
}

async function open(value: string, options: HubOptions = {}) {
  const reference = hubReference(value)!;
  const onLine = (line: string) => void lines.push(line);
  return await openHubModel(reference, { settings: settings(), onLine, ...options });
}

/** What `open` is refused with. */
async function refused(value: string, changes: Partial<HubSettings> = {}): Promise<string> {
  return await refusal(() => open(value, { settings: settings(changes) }), "download");
}

const isFile = ({ path }: HubRequest) => path.includes("/resolve/") || path.startsWith("/cdn/");
const blobs = () => join(cache, "models--org--single", "blobs");
const blob = () => join(blobs(), sha256(weights));

/** Nothing has a final name, no snapshot and no ref is there. */
function expectNothingWhole(): void {
  const root = join(cache, "models--org--single");
  const names = existsSync(blobs()) ? readdirSync(blobs()) : [];
  expect(names.filter((name) => !name.endsWith(".incomplete"))).toEqual([]);
  expect(existsSync(join(root, "refs", "main"))).toBe(false);
  expect(existsSync(join(root, "snapshots"))).toBe(false);
}

/** Lets the n-th answer with a part of a large file have the n-th fault. */
function faults(...list: (Fault | undefined)[]): void {
  server.fault = (request) => (request.isCdn ? list.shift() : undefined);
}

describe("a whole download", () => {
  test("is laid out as Python does it, and found again without a request", async () => {
    const { path, fetchedBytes } = await open("org/single");
    const root = join(cache, "models--org--single");
    expect(path).toBe(join(root, "snapshots", commit, "model.safetensors"));
    expect(readlinkSync(path)).toBe(`../../blobs/${sha256(weights)}`);
    expect(readFileSync(path).equals(weights)).toBe(true);
    expect(readFileSync(join(root, "refs", "main"), "utf8")).toBe(commit);
    expect(readdirSync(join(root, "snapshots", commit))).toEqual(["model.safetensors"]);
    expect(fetchedBytes).toBe(weights.length);
    server.requests.length = 0;
    for (const value of ["org/single", `org/single@${commit}`, "org/single:model.safetensors"]) {
      expect((await open(value)).path).toBe(path);
    }
    expect(server.requests).toEqual([]);
  });

  test("of a branch with a slash and of a nested file", async () => {
    const files = { "a/b/c d.safetensors": weights };
    const other = "f".repeat(40);
    server.repositories.set("org/single", { commit: other, files, refs: { "refs/pr/3": other } });
    const { path } = await open("org/single@refs/pr/3");
    expect(readFileSync(path).equals(weights)).toBe(true);
    expect(readlinkSync(path)).toBe(`../../../../blobs/${sha256(weights)}`);
    expect(readFileSync(join(cache, "models--org--single/refs/refs/pr/3"), "utf8")).toBe(other);
  });

  test("asks again with refresh, and keeps what it has where nobody answers", async () => {
    await open("org/single");
    const newer = random(5000, 3);
    const files = { "model.safetensors": newer };
    server.repositories.set("org/single", { commit: "a".repeat(40), files });
    expect((await open("org/single")).commit).toBe(commit);
    const fresh = await open("org/single", { refresh: true });
    expect([fresh.commit, fresh.isFresh]).toEqual(["a".repeat(40), true]);
    server.fault = () => ({ status: 503 });
    const kept = await open("org/single", { refresh: true });
    expect([kept.path, kept.isFresh]).toEqual([fresh.path, false]);
    expect(lines.at(-1)).toMatch(/does not work at the moment.*as it was last fetched/);
  });

  test("reports every byte, and says the total first", async () => {
    let last = 0;
    await open("org/single", {
      onDownload: ({ doneBytes, bytes, files }) => {
        expect(doneBytes).toBeGreaterThanOrEqual(last);
        expect(files).toHaveLength(1);
        expect(bytes).toBe(weights.length);
        last = doneBytes;
      },
    });
    expect(last).toBe(weights.length);
    expect(lines[0]).toMatch(/^Fetching org\/single to .*: 1 file, 3\.00 MB\.$/);
  });
});

describe("the token", () => {
  const token = "hf_secret-0123456789";
  test("goes to the hub alone", async () => {
    await open("org/single", { settings: settings({ token, tokenSource: "HF_TOKEN" }) });
    const sent = server.requests.map(({ isCdn, headers }) => [isCdn, headers.authorization]);
    expect(sent).toContainEqual([true, undefined]);
    for (const [isCdn, header] of sent) expect(header).toBe(isCdn ? undefined : `Bearer ${token}`);
  });

  test("is not sent to a host that a list's next page is on, nor shown", async () => {
    server.pageLength = 1;
    const elsewhere = server.endpoint.replace("127.0.0.1", "localhost");
    server.fault = ({ path }) =>
      path.includes("/tree/")
        ? { headers: { link: `<${elsewhere}/cdn/${"0".repeat(64)}>; rel="next"` } }
        : undefined;
    const message = await refused("org/single", { token, tokenSource: "HF_TOKEN" });
    expect(message).not.toContain(token);
    expect(server.requests.filter(({ isCdn }) => isCdn)).not.toEqual([]);
    for (const { isCdn, headers } of server.requests) {
      if (isCdn) expect(headers.authorization).toBeUndefined();
    }
  });
});

describe("interruptions", () => {
  test("20 at random places: whole in the end, and next to nothing twice", async () => {
    const big = random(12_000_000, 4);
    server.repositories.set("org/big", { commit, files: { "m.safetensors": big } });
    let cuts = 20;
    const seeded = random(80, 5);
    server.fault = (request) => {
      if (!request.isCdn || cuts === 0) return undefined;
      return { cutAfter: 1 + (seeded.readUInt32LE(4 * --cuts) % 1_000_000) };
    };
    const { path } = await open("org/big");
    expect(cuts).toBe(0);
    expect(sha256(readFileSync(path))).toBe(sha256(big));
    expect(server.sentBytes - big.length).toBeLessThan(20 * 2 ** 20);
  });

  test("in another run: only the rest is asked for", async () => {
    server.fault = (request) => (request.isCdn ? { cutAfter: 1_500_000 } : undefined);
    const stop = new AbortController();
    const onDownload = ({ doneBytes }: { doneBytes: number }) => {
      if (doneBytes > 1_000_000) stop.abort();
    };
    const stopped = () => open("org/single", { signal: stop.signal, onDownload });
    expect(await refusal(stopped, "cancelled")).toMatch(/run it again to go on from there/);
    expectNothingWhole();
    const there = statSync(`${blob()}.incomplete`).size;
    expect(there).toBeGreaterThan(1_000_000);
    server.fault = () => undefined;
    server.sentBytes = 0;
    const { path } = await open("org/single");
    expect(server.sentBytes).toBe(weights.length - there);
    expect(readFileSync(path).equals(weights)).toBe(true);
  });

  test("a partial of Python goes on, whatever its name; one of other bytes does not", async () => {
    mkdirSync(blobs(), { recursive: true });
    writeFileSync(`${blob()}.incomplete`, weights.subarray(0, 10));
    writeFileSync(`${blob()}.0a1b2c3d.incomplete`, weights.subarray(0, 2_000_000));
    const { path } = await open("org/single");
    expect(server.sentBytes).toBe(1_000_000);
    expect(readFileSync(path).equals(weights)).toBe(true);
    expect(readdirSync(blobs())).toEqual([sha256(weights)]);
    rmSync(blob());
    writeFileSync(`${blob()}.incomplete`, random(2_000_000, 9));
    expect(readFileSync((await open("org/single")).path).equals(weights)).toBe(true);
    expect(lines.join()).toContain("arrived damaged");
  });

  test("a whole partial needs no byte, a longer one is none", async () => {
    mkdirSync(blobs(), { recursive: true });
    writeFileSync(`${blob()}.incomplete`, weights);
    await open("org/single");
    expect(server.sentBytes).toBe(0);
    rmSync(blob());
    writeFileSync(`${blob()}.incomplete`, Buffer.concat([weights, weights]));
    expect(readFileSync((await open("org/single")).path).equals(weights)).toBe(true);
  });

  for (const [what, list] of [
    ["a connection that ends before the first byte", [{ cutAfter: 0 }, { cutAfter: 0 }]],
    ["connections that give little", [{ cutAfter: 9 }, { cutAfter: 999 }, { cutAfter: 70_000 }]],
    ["a short body that says so", [{ body: weights.subarray(0, 1000) }]],
    ["503 and 429 in the middle", [{ cutAfter: 1e6 }, { status: 503 }, { status: 429 }]],
    ["a server without parts", [{ cutAfter: 2e6 }, { ignoresRange: true }]],
    [
      "another etag in the middle",
      [{ cutAfter: 2e6, headers: { etag: '"one"' } }, { headers: { etag: '"two"' } }, undefined],
    ],
    [
      "a wrong range",
      [{ cutAfter: 2e6 }, { headers: { "content-range": "bytes 5-2999999/3000000" } }],
    ],
    ["a range of another file", [{ cutAfter: 2e6 }, { headers: { "content-range": "bytes" } }]],
    ["416 for a range that is there", [{ cutAfter: 2e6 }, { status: 416 }]],
    ["damaged bytes, once", [{ body: random(3_000_000, 7) }]],
  ] as [string, (Fault | undefined)[]][]) {
    test(`${what}: whole in the end`, async () => {
      faults(...list);
      const { path } = await open("org/single");
      expect(readFileSync(path).equals(weights)).toBe(true);
    });
  }

  test("a server that sends nothing more is given up and asked again", async () => {
    faults({ stallAfter: 1_000_000 }, { stallAfter: 0 });
    const { path } = await open("org/single", { settings: settings({ timeoutMs: 300 }) });
    expect(readFileSync(path).equals(weights)).toBe(true);
  });

  test("Retry-After is waited for, and a long one is not", async () => {
    let count = 0;
    server.fault = () => (count++ === 0 ? { status: 429, headers: { "retry-after": "1" } } : {});
    await open("org/single");
    expect(count).toBeGreaterThan(3);
    server.fault = () => ({ status: 429, headers: { "retry-after": "3600" } });
    expect(await refused("org/single@other")).toMatch(
      /too many requests from here \(429\).*HF_TOKEN/,
    );
  });
});

describe("refusals leave nothing that looks whole:", () => {
  for (const [what, fault, sentence] of [
    [
      "gated",
      { status: 403, headers: { "x-error-code": "GatedRepo" } },
      /org\/single is gated: accept its terms at http.*\/org\/single, then set HF_TOKEN/,
    ],
    ["forbidden", { status: 403 }, /does not let org\/single be read.*HF_TOKEN/],
    ["wrong for ever", { body: random(3_000_000, 8) }, /twice with another hash.*nothing was kept/],
    ["longer", { body: Buffer.concat([weights, weights]) }, /longer than the 3000000 bytes/],
    ["endless", { isEndless: true }, /longer than the 3000000 bytes/],
    [
      "a web page",
      { body: "<html>Log in</html>", headers: { "content-type": "text/html" } },
      /a web page instead of org\/single:model.safetensors: a proxy or the log-in page/,
    ],
    ["never there", { status: 500 }, /\(status 500\); try again later/],
    ["empty", { body: "" }, /are empty/],
    ["redirected in a circle", { status: 302, headers: { location: "?" } }, /in a circle/],
    [
      "redirected to a file",
      { status: 302, headers: { location: "file:///etc/passwd" } },
      /to file:/,
    ],
  ] as [string, Fault, RegExp][]) {
    test(what, async () => {
      server.fault = (request) => (isFile(request) ? fault : undefined);
      expect(await refused("org/single")).toMatch(sentence);
      expectNothingWhole();
    });
  }

  for (const [what, fault, sentence] of [
    [
      "no such model",
      { status: 401, headers: { "x-error-code": "RepoNotFound" } },
      /or it is private/,
    ],
    ["a page", { body: "<html></html>" }, /a web page instead of a list of files/],
    ["JSON of something else", { body: '"x"' }, /names no commit|web page/],
    ["too much", { isEndless: true }, /more than 64 MiB/],
  ] as [string, Fault, RegExp][]) {
    test(`a list that is ${what}`, async () => {
      server.fault = () => fault;
      expect(await refused("org/single")).toMatch(sentence);
      expectNothingWhole();
    });
  }

  test("a wrong token, named by where it is from", async () => {
    server.fault = () => ({ status: 401, headers: { "x-error-message": "Invalid credentials" } });
    const message = await refused("org/single", { token: "hf_x", tokenSource: "HF_TOKEN" });
    expect(message).toMatch(/refuses the token in HF_TOKEN \("Invalid credentials"\); make one at/);
  });

  test("a revision and a file that there are not", async () => {
    expect(await refused("org/single@v9")).toMatch(/no branch, tag or commit v9;/);
    const names = /no file x\.safetensors; it has model\.safetensors/;
    expect(await refused("org/single:x.safetensors")).toMatch(names);
  });

  test("nobody at the address, no address, no TLS", async () => {
    const gone = await refused("org/single", { endpoint: "http://127.0.0.1:1" });
    expect(gone).toMatch(/^127\.0\.0\.1:1 cannot be reached \(ECONNREFUSED\)/);
    const unknown = await refused("org/single", { endpoint: "http://nowhere.invalid" });
    expect(unknown).toMatch(/no address for nowhere\.invalid.*HTTPS_PROXY|nowhere\.invalid/);
    const plain = server.endpoint.replace("http:", "https:");
    expect(await refused("org/single", { endpoint: plain })).toMatch(
      /is not safe \(.*NODE_EXTRA_CA_CERTS/,
    );
  });

  test("offline", async () => {
    expect(await refused("org/single", { offline: true })).toMatch(/HF_HUB_OFFLINE forbids/);
    await open("org/single");
    server.requests.length = 0;
    const offline = { settings: settings({ offline: true }), refresh: true };
    const { path } = await open("org/single", offline);
    // As Python leaves it, without our record.
    rmSync(join(cache, "models--org--single", ".basedxl"), { recursive: true });
    expect((await open("org/single", offline)).path).toBe(path);
    expect(server.requests).toEqual([]);
    server.fault = () => ({ status: 503 });
    expect((await open("org/single")).path).toBe(path);
    expect(lines.at(-1)).toMatch(/as it was last fetched/);
  });

  test("too little disk for it", async () => {
    const entry = { type: "file", path: "a.safetensors", size: 1e15, oid: "0".repeat(40) };
    const lfs = { oid: "0".repeat(64), size: 1e15, pointerSize: 134 };
    server.fault = ({ path }) =>
      path.includes("/tree/") ? { body: JSON.stringify([{ ...entry, lfs }]) } : undefined;
    const message = await refusal(() => open("org/single"), "io");
    expect(message).toMatch(/needs 1000 TB more in .*, which has .* free/);
    expectNothingWhole();
  });

  test("a cache that cannot be written", async () => {
    const file = join(cache, "file");
    writeFileSync(file, "");
    const wrong = settings({ cacheFolder: join(file, "hub") });
    const message = await refusal(() => open("org/single", { settings: wrong }), "io");
    expect(message).toMatch(/^Cannot write .*a folder above it is a file.*HF_HOME/);
  });
});

describe("an untrusted list", () => {
  for (const name of ["../../x", "/etc/x", "a/../b", "a//b", "a\\b", "a\u001bb", "", ".", "a/.."]) {
    test(`with ${JSON.stringify(name)} names nothing here`, async () => {
      const oid = etagOf(new Uint8Array(1));
      const entries = [{ type: "file", path: name, size: 1, oid }];
      server.fault = ({ path }) =>
        path.includes("/tree/") ? { body: JSON.stringify(entries) } : undefined;
      expect(await refused("org/single")).toMatch(/could lead out of the cache/);
      expect(readdirSync(cache)).toEqual([]);
    });
  }

  test("whose empty pages go on for ever is given up", async () => {
    const next = `<${server.endpoint}/api/models/org/single/tree/${commit}>; rel="next"`;
    server.fault = ({ path }) =>
      path.includes("/tree/") ? { body: "[]", headers: { link: next } } : undefined;
    const sentence = "The list of org/single has more than 1000 pages.";
    expect(await refused("org/single")).toBe(sentence);
    expect(server.requests.length).toBeLessThan(1_100);
  });

  for (const entry of [
    { size: -1, oid: "0".repeat(40) },
    { size: 1.5, oid: "0".repeat(40) },
    { size: 1, oid: "../../x" },
    { size: 1, oid: "0".repeat(40), lfs: { oid: "../x", size: 1 } },
    { size: 1 },
  ]) {
    test(`with ${JSON.stringify(entry)} is refused`, async () => {
      const list = [{ type: "file", path: "model.safetensors", ...entry }];
      server.fault = ({ path }) =>
        path.includes("/tree/") ? { body: JSON.stringify(list) } : undefined;
      expect(await refused("org/single")).toMatch(/without a size or a hash/);
    });
  }

  test("with a commit that is a path is refused", async () => {
    server.fault = ({ path }) =>
      path.includes("/revision/") ? { body: '{"id":"x","sha":"../../../x"}' } : undefined;
    expect(await refused("org/single")).toMatch(/names no commit/);
  });

  test("a file in the place of a link's folder is named, not followed", async () => {
    const files = { a: random(10, 1), "a/b.safetensors": weights };
    server.repositories.set("org/single", { commit, files });
    expect(readFileSync((await open("org/single")).path).equals(weights)).toBe(true);
  });
});

test("whatever the server answers: the file, or a sentence and nothing like it", async () => {
  const bytes = random(20_000, 6);
  const texts = [
    "",
    "bytes 0-1/2",
    "bytes 5-19999/20000",
    '"a"',
    'W/"a"',
    "text/html",
    "-1",
    "9e9",
  ];
  const names = ["content-range", "etag", "content-type", "content-length", "x-linked-etag"];
  const fault = fc.record({
    status: fc.option(fc.constantFrom(200, 206, 204, 304, 302, 400, 403, 404, 416, 429, 500, 503)),
    cutAfter: fc.option(fc.nat(25_000)),
    headers: fc.dictionary(fc.constantFrom(...names), fc.constantFrom(...texts), { maxKeys: 2 }),
    ignoresRange: fc.boolean(),
    body: fc.option(fc.constantFrom("", "{}", "<html>", "x".repeat(30_000))),
  });
  const runs = fc.asyncProperty(fc.array(fault, { maxLength: 8 }), async (list) => {
    const folder = mkdtempSync(join(top, "cache-"));
    server.repositories.set("org/fuzz", { commit, files: { "a.safetensors": bytes } });
    server.fault = ({ path }) => {
      if (!path.includes("/resolve/") && !path.startsWith("/cdn/")) return undefined;
      const { status, cutAfter, body, ...others } = list.shift() ?? {};
      const given = { status, cutAfter, body };
      const set = Object.entries(given).filter(
        ([, value]) => value !== null && value !== undefined,
      );
      return { ...others, ...Object.fromEntries(set) };
    };
    const quick = settings({ cacheFolder: folder, pauseMs: 0, timeoutMs: 100 });
    try {
      const { path } = await open("org/fuzz", { settings: quick });
      expect(readFileSync(path).equals(bytes)).toBe(true);
    } catch (error) {
      if (!(error instanceof BasedXLError)) throw error;
      expect(error.code).toBe("download");
      expect(error.message).toMatch(/^[^\n]+\.$/);
      const root = join(folder, "models--org--fuzz");
      const whole = existsSync(root) ? readdirSync(join(root, "blobs")) : [];
      expect(whole.filter((name) => !name.endsWith(".incomplete"))).toEqual([]);
      expect(existsSync(join(root, "snapshots"))).toBe(false);
    }
  });
  await fc.assert(runs, { numRuns: 60 });
});

describe("several at once", () => {
  test("of one process: one fetches, the others wait", async () => {
    const all = await Promise.all([1, 2, 3].map(() => open("org/single")));
    for (const { path } of all) expect(readFileSync(path).equals(weights)).toBe(true);
    expect(server.sentBytes).toBe(weights.length);
  });

  test("a lock file that nobody holds is no lock; another length is no content", async () => {
    const locks = join(cache, ".locks", "models--org--single");
    mkdirSync(locks, { recursive: true });
    writeFileSync(join(locks, `${sha256(weights)}.lock`), "12345");
    const { path } = await open("org/single");
    expect(lstatSync(blob()).isFile()).toBe(true);
    truncateSync(blob(), 5);
    await open("org/single", { refresh: true });
    expect(readFileSync(path).equals(weights)).toBe(true);
  });
});
