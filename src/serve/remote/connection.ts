/**
 * The connection to Redis or Valkey of a server or worker. Where it is lost it comes back by
 * itself; what is asked meanwhile waits.
 */
import { Redis } from "ioredis";
import { BasedXLError, escaped } from "../../errors.ts";
import type { ServeLog } from "../log.ts";
import { announcementOf, noticeOf } from "./checked.ts";
import {
  type Announcement,
  type Notice,
  noticeChannel,
  workerKeyOf,
  workersKey,
} from "./messages.ts";

export class QueueConnection implements AsyncDisposable {
  readonly redis: Redis;
  private readonly subscriber: Redis;
  private readonly others: Redis[] = [];
  private isLost = false;

  constructor(
    url: string,
    private readonly log: ServeLog,
  ) {
    this.redis = new Redis(url, {
      // BullMQ asks for it: commands wait for as long as it takes.
      maxRetriesPerRequest: null,
      retryStrategy: (attempt) => Math.min(retryMsMax, 50 * 2 ** attempt),
    });
    this.redis.on("error", (error) => this.noteLoss(error.message));
    this.redis.on("ready", () => this.noteReturn());
    this.subscriber = this.duplicate();
  }

  /** Rejects with "io" where nothing answers. */
  static async open(url: string, log: ServeLog): Promise<QueueConnection> {
    const connection = new QueueConnection(url, log);
    try {
      const answer = Promise.all([connection.redis.ping(), connection.subscriber.ping()]);
      await Promise.race([answer, Bun.sleep(openMsMax).then(() => Promise.reject())]);
      return connection;
    } catch {
      await connection[Symbol.asyncDispose]();
      throw new BasedXLError("io", `Nothing answers at --queue ${shownUrl(url)} as Redis does.`);
    }
  }

  get isUp(): boolean {
    return this.redis.status === "ready";
  }

  /** Another connection, for what blocks; BullMQ closes none that it is given. */
  duplicate(): Redis {
    const redis = this.redis.duplicate();
    this.others.push(redis);
    redis.on("error", (error) => this.noteLoss(error.message));
    return redis;
  }

  notify(notice: Notice): void {
    // Whoever misses it looks again by itself.
    this.redis.publish(noticeChannel, JSON.stringify(notice)).catch(() => {});
  }

  async listen(take: (notice: Notice) => void): Promise<void> {
    this.subscriber.on("message", (_, text) => {
      const notice = noticeOf(text);
      if (notice !== null) take(notice);
    });
    await this.subscriber.subscribe(noticeChannel);
  }

  /** Holds for `seconds`. */
  async announce(id: string, announcement: Announcement, seconds: number): Promise<void> {
    await this.redis
      .multi()
      .sadd(workersKey, id)
      .set(workerKeyOf(id), JSON.stringify(announcement), "EX", seconds)
      .exec();
  }

  async retract(id: string): Promise<void> {
    await this.redis.multi().srem(workersKey, id).del(workerKeyOf(id)).exec();
  }

  /** Of the workers that were heard of a moment ago. */
  async announcements(): Promise<Announcement[]> {
    const ids = await this.redis.smembers(workersKey);
    if (ids.length === 0) return [];
    const texts = await this.redis.mget(ids.map(workerKeyOf));
    const gone = ids.filter((_, index) => texts[index] === null);
    if (gone.length > 0) await this.redis.srem(workersKey, gone);
    return texts.flatMap((text) => (text === null ? [] : (announcementOf(text) ?? [])));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const redis of [this.redis, ...this.others]) redis.disconnect();
  }

  // --- internal ---

  private noteLoss(message: string): void {
    if (this.isLost) return;
    this.isLost = true;
    this.log.warn("queue_lost", { message });
  }

  private noteReturn(): void {
    if (this.isLost) this.log.info("queue_back");
    this.isLost = false;
  }
}

// --- internal ---

const retryMsMax = 1000;
const openMsMax = 5000;

/** Without the password. */
function shownUrl(url: string): string {
  const parsed = URL.parse(url);
  return parsed === null
    ? ""
    : escaped(`${parsed.protocol}//${parsed.host}${parsed.pathname}`, 200);
}
