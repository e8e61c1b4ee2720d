/**
 * The events of a job as the messages of ComfyUI's socket, in the order of its executor: nodes
 * before the sampler, the sampler with progress and previews, then the decoder and the outputs.
 * Source: ComfyUI, execution.py (execute, PromptExecutor), comfy_execution/progress.py, main.py.
 */
import type { JobEvent, JobView } from "../../jobs/types.ts";
import { failureOf, outputOf } from "./history.ts";
import { type ComfyData, promptIdOf } from "./job-data.ts";

export type Message =
  | { type: string; data: object; isForAll?: boolean }
  /** A preview, with what clients that ask for it get beside it. */
  | { preview: Uint8Array; about: object };

interface NodeState {
  state: "running" | "finished";
  value: number;
  max: number;
}

/** Follows one job. */
export class JobMessages {
  private readonly nodes = new Map<string, NodeState>();
  private readonly promptId: string;
  private imageCount = 0;

  constructor(
    job: JobView,
    private readonly data: ComfyData,
  ) {
    this.promptId = promptIdOf(job, data);
  }

  /** The node that is being executed; null before and after. */
  get current(): string | null {
    const running = [...this.nodes].find(([, { state }]) => state === "running");
    return running?.[0] ?? null;
  }

  /** `job` is the job after the event. */
  *of(event: JobEvent, job: JobView): Iterable<Message> {
    const { data } = this;
    // Whoever follows from the middle on begins with what came before.
    const isLate = this.nodes.size === 0 && ["progress", "preview", "done"].includes(event.type);
    if (event.type === "start" || isLate) yield* this.started(event.at);
    if (event.type === "progress") yield* this.progressed(event, job);
    else if (event.type === "preview") {
      yield { preview: event.data, about: this.placeOf(this.current ?? data.sampler) };
    } else if (event.type === "image") this.imageCount++;
    else if (event.type === "done") yield* this.done(event.at, job);
    else if (event.type === "failed" || event.type === "cancelled") {
      const failure = failureOf(job, data, this.finishedNodes());
      // What was taken out of the queue leaves without a message.
      if (failure === null || this.nodes.size === 0) return;
      const [type, about] = failure;
      const isForAll = type === "execution_interrupted";
      yield { type, data: { ...about, timestamp: event.at }, isForAll };
      yield this.idle();
      this.nodes.clear();
    }
  }

  // --- internal ---

  private *started(timestamp: number): Iterable<Message> {
    // A job whose process died starts again.
    this.nodes.clear();
    this.imageCount = 0;
    const { promptId: prompt_id, data } = this;
    yield { type: "execution_start", data: { prompt_id, timestamp } };
    yield { type: "execution_cached", data: { nodes: [], prompt_id, timestamp } };
    yield* this.advance(data.first ?? data.sampler);
  }

  /** To a node, by way of those before it. */
  private *advance(id: string): Iterable<Message> {
    const { order } = this.data;
    for (const each of order.slice(0, order.indexOf(id))) {
      if (this.nodes.get(each)?.state === "running") yield this.finish(each);
      else if (!this.nodes.has(each)) yield* this.execute(each);
    }
    if (!this.nodes.has(id)) yield* this.begin(id);
  }

  private *progressed(
    { stage, step, steps, pass }: Extract<JobEvent, { type: "progress" }>,
    { spec }: JobView,
  ): Iterable<Message> {
    const { decode } = this.data;
    const count = spec.request.imageCount ?? 1;
    const isLastPass = pass === undefined || pass.index === pass.count;
    if (stage === "decode" && isLastPass && this.imageCount + 1 >= count) {
      yield* this.leaveSampler();
    }
    if (stage !== "denoise" || this.nodes.has(decode)) return;
    const { firstSteps = 0 } = this.data;
    const isFirst = step <= firstSteps && firstSteps > 0;
    if (isLastPass && !isFirst) yield* this.advance(this.data.sampler);
    if (step === 0) return;
    const sampler = this.current ?? this.data.sampler;
    const own = isFirst ? firstSteps : steps - firstSteps;
    // Of two models the first one makes its steps of all images before the second one begins.
    const done = firstSteps > 0 ? 0 : Math.min(this.imageCount, count - 1);
    const value = done * own + (isFirst ? step : step - firstSteps);
    const max = firstSteps > 0 ? own : count * own;
    this.nodes.set(sampler, { state: "running", value, max });
    const { promptId: prompt_id } = this;
    yield { type: "progress", data: { value, max, prompt_id, node: sampler } };
    yield this.state();
  }

  private *leaveSampler(): Iterable<Message> {
    const { sampler, decode } = this.data;
    if (this.nodes.has(decode)) return;
    yield* this.advance(sampler);
    yield this.finish(sampler);
    yield* this.advance(decode);
  }

  private *done(timestamp: number, job: JobView): Iterable<Message> {
    const { promptId: prompt_id, data } = this;
    yield* this.leaveSampler();
    yield this.finish(data.decode);
    const rest = data.order.slice(data.order.indexOf(data.sampler) + 1);
    for (const id of rest) {
      if (this.nodes.has(id)) continue;
      yield* this.begin(id);
      if (data.outputs.includes(id)) {
        const output = outputOf(job, data, id);
        yield { type: "executed", data: { node: id, display_node: id, output, prompt_id } };
      }
      yield this.finish(id);
    }
    yield { type: "execution_success", data: { prompt_id, timestamp } };
    yield this.idle();
    this.nodes.clear();
  }

  private *execute(id: string): Iterable<Message> {
    yield* this.begin(id);
    yield this.finish(id);
  }

  private *begin(id: string): Iterable<Message> {
    this.nodes.set(id, { state: "running", value: 0, max: 1 });
    yield this.state();
    yield {
      type: "executing",
      data: { node: id, display_node: id, prompt_id: this.promptId },
    };
  }

  private finish(id: string): Message {
    const max = this.nodes.get(id)?.max ?? 1;
    this.nodes.set(id, { state: "finished", value: max, max });
    return this.state();
  }

  private idle(): Message {
    return { type: "executing", data: { node: null, prompt_id: this.promptId } };
  }

  private state(): Message {
    const { promptId: prompt_id } = this;
    const nodes = [...this.nodes].map(([id, state]) => [id, { ...state, ...this.placeOf(id) }]);
    return { type: "progress_state", data: { prompt_id, nodes: Object.fromEntries(nodes) } };
  }

  private placeOf(id: string) {
    return {
      node_id: id,
      prompt_id: this.promptId,
      display_node_id: id,
      parent_node_id: null,
      real_node_id: id,
    };
  }

  private finishedNodes(): string[] {
    return [...this.nodes].flatMap(([id, { state }]) => (state === "finished" ? [id] : []));
  }
}
