/**
 * ComfyUI's /ws: each client gets the messages of its own prompts, and all get the length of the
 * queue. Jobs are followed without clients too, so that one that comes back learns where its prompt
 * is.
 * Source: ComfyUI, server.py (websocket_handler, send_image, send_image_with_metadata).
 */
import type { WSContext } from "hono/ws";
import { isLast } from "../../jobs/events.ts";
import type { JobEvent, JobService } from "../../jobs/types.ts";
import { clientIdOf, comfyDataOf } from "./job-data.ts";
import { JobMessages, type Message } from "./messages.ts";

/** What this server can do, for /features and sockets that ask. */
export const features = { supports_preview_metadata: true, max_upload_size: 104_857_600 };

interface Client {
  socket: WSContext;
  wantsMetadata: boolean;
  hasSpoken: boolean;
}

export class Sockets {
  private readonly clients = new Map<string, Client>();
  /** Of jobs that have not ended. */
  private readonly followed = new Map<string, JobMessages>();

  constructor(private readonly jobs: JobService) {
    void this.follow();
  }

  /** A socket of this id takes the place of an earlier one. */
  open(id: string, socket: WSContext): void {
    this.clients.set(id, { socket, wantsMetadata: false, hasSpoken: false });
    this.send(id, { type: "status", data: { ...this.status(), sid: id } });
    this.sendCurrent(id);
  }

  /** The first message may say what the client can do. */
  receive(id: string, text: unknown): void {
    const client = this.clients.get(id);
    if (client === undefined || client.hasSpoken || typeof text !== "string") return;
    client.hasSpoken = true;
    const said = parsed(text);
    if (said?.type !== "feature_flags") return;
    client.wantsMetadata = said.data?.supports_preview_metadata === true;
    this.send(id, { type: "feature_flags", data: features });
  }

  close(id: string, socket: WSContext): void {
    if (this.clients.get(id)?.socket.raw === socket.raw) this.clients.delete(id);
  }

  /** As GET /prompt gives it too. */
  queueInfo() {
    const waiting = this.jobs.list({ state: "queued" }).length;
    const running = this.jobs.list({ state: "running" }).length;
    return { exec_info: { queue_remaining: waiting + running } };
  }

  // --- internal ---

  private status() {
    return { status: this.queueInfo() };
  }

  private async follow(): Promise<void> {
    for await (const event of this.jobs.events("all")) {
      if (event.type === "start") await Bun.sleep(answerMs);
      this.take(event);
    }
  }

  private take(event: JobEvent): void {
    const isEnd = isLast(event);
    const job = this.jobs.get(event.jobId);
    const data = job && comfyDataOf(job);
    const messages: Message[] = [];
    if (job && data) {
      const known = this.followed.get(job.id) ?? new JobMessages(job, data);
      messages.push(...known.of(event, job));
      if (isEnd) this.followed.delete(job.id);
      else this.followed.set(job.id, known);
    }
    if (isEnd || event.type === "start" || event.type === "queued") {
      // The worker leaves its node after the queue has moved on.
      const last = messages.at(-1);
      const place = isEnd && last && "type" in last ? messages.length - 1 : messages.length;
      messages.splice(place, 0, { type: "status", data: this.status(), isForAll: true });
    }
    const own = data && clientIdOf(data);
    for (const message of messages) this.spread(message, own);
  }

  private spread(message: Message, own: string | null | undefined): void {
    const isForAll = "type" in message && message.isForAll === true;
    for (const id of this.clients.keys()) if (isForAll || id === own) this.send(id, message);
  }

  /** To a client that comes back while its prompt runs. */
  private sendCurrent(id: string): void {
    for (const [jobId, { current: node }] of this.followed) {
      const job = this.jobs.get(jobId);
      const data = job && comfyDataOf(job);
      if (!data || node === null || clientIdOf(data) !== id) continue;
      this.send(id, { type: "executing", data: { node } });
    }
  }

  private send(id: string, message: Message): void {
    const { socket, wantsMetadata } = this.clients.get(id)!;
    if ("type" in message) {
      socket.send(JSON.stringify({ type: message.type, data: message.data }));
    } else socket.send(previewBytes(message, wantsMetadata));
  }
}

// --- internal ---

/** Clients listen for a prompt once they have its id: the answer to POST /prompt goes first. */
const answerMs = 25;
/** Numbers of binary messages, and of image formats in them. */
const previewImage = 1;
const previewWithMetadata = 4;
const jpeg = 1;

function previewBytes(
  { preview, about }: { preview: Uint8Array; about: object },
  wantsMetadata: boolean,
): Uint8Array<ArrayBuffer> {
  if (!wantsMetadata) return joined(numbers(previewImage, jpeg), preview);
  const text = Buffer.from(JSON.stringify({ ...about, image_type: "image/jpeg" }));
  return joined(numbers(previewWithMetadata, text.length), text, preview);
}

function numbers(...values: readonly number[]): Uint8Array {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [at, value] of values.entries()) bytes.writeUInt32BE(value, 4 * at);
  return bytes;
}

function joined(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.concat(parts));
}

function parsed(text: string): { type?: unknown; data?: Record<string, unknown> | null } | null {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
