/**
 * Reports of one job on their way to the server, in their order. Where the way is slow or closed, a
 * newer progress or preview takes the place of the last one.
 */
import type { Report } from "./messages.ts";

export class Outbox {
  private readonly reports: Report[] = [];
  private sending: Promise<void> | null = null;

  /** `send` may reject: then the report is lost. */
  constructor(private readonly send: (report: Report) => Promise<void>) {}

  add(report: Report): void {
    const last = this.reports.at(-1);
    const isReplaced = report.type === "progress" || report.type === "preview";
    if (isReplaced && last?.type === report.type) this.reports.pop();
    this.reports.push(report);
    this.sending ??= this.sendAll();
  }

  /** Resolves when all are sent. */
  async drained(): Promise<void> {
    await this.sending;
  }

  // --- internal ---

  private async sendAll(): Promise<void> {
    for (let next = this.reports.shift(); next !== undefined; next = this.reports.shift()) {
      await this.send(next).catch(() => {});
    }
    this.sending = null;
  }
}
