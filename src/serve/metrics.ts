/**
 * What the server counts, as Prometheus reads it at /metrics.
 */
import { Counter, Gauge, Histogram, Registry } from "prom-client";

interface Sources {
  queueLength: () => number;
  runningCount: () => number;
  unfinishedCount: () => number;
  loadedModels: () => number;
}

export class Metrics {
  private readonly registry = new Registry();
  private readonly registers = [this.registry];

  readonly jobs = this.counter("basedxl_jobs_total", "Jobs that ended, by state", ["state"]);
  readonly images = this.counter("basedxl_images_total", "Images that were written", ["model"]);
  readonly requests = this.counter("basedxl_http_requests_total", "Requests, by status", [
    "method",
    "status",
  ]);
  readonly refused = this.counter("basedxl_jobs_refused_total", "Jobs that found the queue full");
  readonly stepSeconds = this.histogram("basedxl_step_seconds", "Seconds of a step", [
    ...[0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60],
  ]);
  readonly imageSeconds = this.histogram(
    "basedxl_image_seconds",
    "Seconds from the start of a job to an image that is written",
    [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600],
  );
  readonly waitSeconds = this.histogram("basedxl_wait_seconds", "Seconds of jobs in the queue", [
    ...[0.01, 0.1, 1, 5, 10, 30, 60, 300, 1800],
  ]);
  readonly loadSeconds = this.histogram("basedxl_model_load_seconds", "Seconds to load a model", [
    ...[0.1, 0.5, 1, 2, 5, 10, 30, 60, 120],
  ]);

  constructor({ queueLength, runningCount, unfinishedCount, loadedModels }: Sources) {
    this.gauge("basedxl_queue_length", "Jobs that wait", queueLength);
    this.gauge("basedxl_jobs_running", "Jobs that run", runningCount);
    this.gauge("basedxl_jobs_unfinished", "Jobs that wait or run", unfinishedCount);
    this.gauge("basedxl_models_loaded", "Models that are loaded", loadedModels);
    this.gauge("process_resident_memory_bytes", "Memory of the process", () => {
      return process.memoryUsage.rss();
    });
    this.gauge("process_uptime_seconds", "Time since the start", () => process.uptime());
  }

  get contentType(): string {
    return this.registry.contentType;
  }

  async text(): Promise<string> {
    return await this.registry.metrics();
  }

  // --- internal ---

  private counter<Label extends string>(name: string, help: string, labelNames: Label[] = []) {
    return new Counter({ name, help, labelNames, registers: this.registers });
  }

  private histogram(name: string, help: string, buckets: number[]) {
    return new Histogram({ name, help, labelNames: ["model"], buckets, registers: this.registers });
  }

  private gauge(name: string, help: string, read: () => number): void {
    new Gauge({
      ...{ name, help, registers: this.registers },
      collect() {
        this.set(read());
      },
    });
  }
}
