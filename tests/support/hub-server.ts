/**
 * A hub on this machine, as far as downloads go: the API's two lists, small files from itself and
 * large ones by a redirect to another host name ("cdn"), as huggingface.co has it. It speaks HTTP
 * by hand, so that it can break off, lie and stall at any byte.
 */
import { createServer, type Socket } from "node:net";
import type { HubSettings } from "../../src/hub/settings.ts";

export interface HubRequest {
  method: string;
  /** Without the query. */
  path: string;
  query: string;
  headers: Record<string, string>;
  /** True on the host that large files are redirected to. */
  isCdn: boolean;
}

/** What the server does otherwise than it should; undefined members are as usual. */
export interface Fault {
  status?: number;
  headers?: Record<string, string>;
  body?: string | Uint8Array;
  /** Ends the connection after so many bytes of the body. */
  cutAfter?: number;
  /** Sends so many bytes of the body, then nothing more. */
  stallAfter?: number;
  /** Answers with the whole file, whatever part is asked for. */
  ignoresRange?: boolean;
  /** Sends the body without a length, for ever. */
  isEndless?: boolean;
}

export interface FakeRepository {
  commit: string;
  files: Record<string, Uint8Array>;
  /** Branches and tags beside main. */
  refs?: Record<string, string>;
}

export interface HubServer {
  /** For HF_ENDPOINT. */
  endpoint: string;
  repositories: Map<string, FakeRepository>;
  requests: HubRequest[];
  /** Bytes of bodies of files that were sent. */
  sentBytes: number;
  fault: (request: HubRequest) => Fault | undefined;
  /** Entries of one page of a list. */
  pageLength: number;
  stop(): void;
}

/** Files from this size on are kept as Git LFS does, on the other host. */
export const lfsBytesMin = 4096;

export async function startHubServer(port = 0): Promise<HubServer> {
  const sockets = new Set<Socket>();
  const listener = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => {});
    let head = "";
    socket.on("data", (data) => {
      // The beginning of TLS, which this server does not speak.
      if (data[0] === 0x16) return void socket.end("HTTP/1.1 400 Bad Request\r\n\r\n");
      head += data.toString("latin1");
      const end = head.indexOf("\r\n\r\n");
      if (end < 0) return;
      const request = parse(head.slice(0, end));
      head = "";
      server.requests.push(request);
      void answer(server, request, socket);
    });
  });
  await new Promise<void>((resolve) => listener.listen(port, "127.0.0.1", resolve));
  const address = listener.address();
  const bound = typeof address === "object" && address ? address.port : 0;
  const server: HubServer = {
    endpoint: `http://127.0.0.1:${bound}`,
    repositories: new Map(),
    requests: [],
    sentBytes: 0,
    fault: () => undefined,
    pageLength: 1000,
    stop() {
      listener.close();
      for (const socket of sockets) socket.destroy();
    },
  };
  return server;
}

/** Settings for downloads from `server`, without pauses between attempts. */
export function settingsFor(
  { endpoint }: HubServer,
  cacheFolder: string,
  changes: Partial<HubSettings> = {},
): HubSettings {
  const token = { token: null, tokenSource: null };
  const times = { timeoutMs: 5000, pauseMs: 1 };
  return { endpoint, cacheFolder, offline: false, ...token, ...times, ...changes };
}

export function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

/** The name of a content, as the hub gives it. */
export function etagOf(bytes: Uint8Array): string {
  if (bytes.length >= lfsBytesMin) return sha256(bytes);
  return new Bun.CryptoHasher("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
}

// --- internal ---

function parse(head: string): HubRequest {
  const [first = "", ...lines] = head.split("\r\n");
  const [method = "", target = ""] = first.split(" ");
  const [path = "", query = ""] = target.split("?", 2);
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const colon = line.indexOf(":");
    headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
  }
  const isCdn = (headers.host ?? "").startsWith("localhost");
  return { method, path, query, headers, isCdn };
}

interface Answer {
  status: number;
  headers: Record<string, string>;
  body: Uint8Array;
  isFile?: boolean;
}

async function answer(server: HubServer, request: HubRequest, socket: Socket): Promise<void> {
  const fault = server.fault(request) ?? {};
  const usual = usualAnswer(server, request, fault.ignoresRange === true);
  const body = fault.body === undefined ? usual.body : Buffer.from(fault.body);
  const headers: Record<string, string> = {
    ...usual.headers,
    "content-length": String(body.length),
    connection: "close",
    ...fault.headers,
  };
  if (fault.isEndless) delete headers["content-length"];
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`HTTP/1.1 ${fault.status ?? usual.status} X\r\n${lines.join("")}\r\n`);
  if (request.method === "HEAD") return void socket.end();
  const end = Math.min(body.length, fault.cutAfter ?? fault.stallAfter ?? body.length);
  for (let at = 0; at < end; ) {
    const chunk = body.subarray(at, Math.min(end, at + 65536));
    at += chunk.length;
    if (usual.isFile) server.sentBytes += chunk.length;
    if (!socket.write(chunk)) await new Promise((resolve) => socket.once("drain", resolve));
    if (socket.destroyed) return;
  }
  while (fault.isEndless && !socket.destroyed) {
    socket.write(Buffer.alloc(65536, "x"));
    await Bun.sleep(1);
  }
  if (fault.stallAfter === undefined) socket.end();
}

function usualAnswer(server: HubServer, request: HubRequest, ignoresRange: boolean): Answer {
  const parts = request.path.split("/").slice(1).map(decodeURIComponent);
  if (request.isCdn) {
    const sha = parts[1] ?? "";
    const files = [...server.repositories.values()].flatMap(({ files }) => Object.values(files));
    const body = files.find((bytes) => sha256(bytes) === sha);
    return body ? file(body, request, sha, ignoresRange) : missing("EntryNotFound");
  }
  const isApi = parts[0] === "api";
  const [owner, name, page, revision = ""] = isApi ? parts.slice(2) : parts;
  const id = `${owner}/${name}`;
  const repository = server.repositories.get(id);
  if (repository === undefined) return missing("RepoNotFound");
  const commit = commitOf(repository, revision);
  if (commit === null) return missing("RevisionNotFound");
  if (page === "revision")
    return json({ _id: "1", id, sha: commit, lastModified: "2026-01-01T00:00:00.000Z" });
  if (page === "tree") return tree(server, id, repository, request);
  const path = parts.slice(4).join("/");
  const bytes = repository.files[path];
  if (bytes === undefined) return missing("EntryNotFound");
  const common = { "x-repo-commit": commit };
  const etag = etagOf(bytes);
  if (bytes.length < lfsBytesMin) {
    const found = file(bytes, request, etag, ignoresRange);
    return { ...found, headers: { ...found.headers, ...common } };
  }
  const { port } = new URL(server.endpoint);
  const linked = { "x-linked-etag": `"${etag}"`, "x-linked-size": String(bytes.length) };
  const location = `http://localhost:${port}/cdn/${etag}`;
  const body = Buffer.from("Found");
  return { status: 302, headers: { ...common, ...linked, location, etag: '"pointer"' }, body };
}

function commitOf({ commit, refs = {} }: FakeRepository, revision: string): string | null {
  if (revision === "main" || revision === commit) return commit;
  return refs[revision] ?? (Object.values(refs).includes(revision) ? revision : null);
}

function tree(
  server: HubServer,
  id: string,
  { files, commit }: FakeRepository,
  { query }: HubRequest,
): Answer {
  const start = Number(new URLSearchParams(query).get("cursor") ?? 0);
  const all = Object.entries(files).map(([path, bytes]) => {
    const size = bytes.length;
    const base = { type: "file", path, size, oid: "0".repeat(40) };
    if (size < lfsBytesMin) return { ...base, oid: etagOf(bytes) };
    return { ...base, lfs: { oid: sha256(bytes), size, pointerSize: 134 } };
  });
  const next = start + server.pageLength;
  const folder = { type: "directory", path: "unet", size: 0, oid: "0".repeat(40) };
  const found = json([folder, ...all.slice(start, next)]);
  if (next < all.length) {
    const page = `${server.endpoint}/api/models/${id}/tree/${commit}?recursive=true&cursor=${next}`;
    found.headers.link = `<${page}>; rel="next"`;
  }
  return found;
}

function file(
  bytes: Uint8Array,
  { headers }: HubRequest,
  etag: string,
  ignoresRange: boolean,
): Answer {
  const common = {
    etag: `"${etag}"`,
    "accept-ranges": "bytes",
    "content-type": "application/octet-stream",
  };
  const whole = { status: 200, headers: common, body: bytes, isFile: true };
  const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? "") ?? [];
  const condition = headers["if-range"];
  const isOther = condition !== undefined && condition !== common.etag;
  if (from === undefined || ignoresRange || isOther) return whole;
  const first = Number(from);
  if (first >= bytes.length) return { ...whole, status: 416, body: new Uint8Array() };
  const last = Math.min(bytes.length - 1, to ? Number(to) : bytes.length - 1);
  const range = { "content-range": `bytes ${first}-${last}/${bytes.length}` };
  const body = bytes.subarray(first, last + 1);
  return { status: 206, headers: { ...common, ...range }, body, isFile: true };
}

function json(value: unknown): Answer {
  const headers = { "content-type": "application/json; charset=utf-8" };
  return { status: 200, headers, body: Buffer.from(JSON.stringify(value)) };
}

function missing(code: string): Answer {
  const status = code === "RepoNotFound" ? 401 : 404;
  return { status, headers: { "x-error-code": code }, body: Buffer.from("{}") };
}
