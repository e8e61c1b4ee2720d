/**
 * A model of the exchange between GPU ranks, explored exhaustively: every order in which the host
 * threads of three ranks can take their turns, with a rank that fails anywhere or none. What the
 * threads queue on their streams is not run but put in order: an operation happens before another
 * where the stream or an event says so, and any two operations that are not ordered may overlap.
 * So one order of the host stands for all orders of the GPUs.
 *
 * Each step here has the name of what it stands for: `record`, `signal`, `waitFor`, `swap`,
 * `beginPart`, `endPart`, `gather`, `endGather` of zig/transport.zig and, in zig/transport/, of
 * endpoint.zig, local_ranks.zig and peer_copy.zig; and the order of calls of exchange.zig,
 * shards.zig, slot_swaps.zig and changes.zig in zig/patch/ and of zig/pipeline/gather.zig. Whoever
 * changes one of these changes the model.
 */

export interface ModelOptions {
  ranks: number;
  steps: number;
  slots: number;
  /** `group_slot_count`: slots whose stale values travel together. */
  groupSlots: number;
  /** `slot_event_count`: events of written slots, used in turn. */
  slotEvents: number;
  /** Steps that read fresh values; the others read those of the step before. */
  freshSteps: number;
  /** Slots of statistics: fresh values are read in the memory of the rank that wrote them. */
  readThere?: readonly number[];
  /** The slots [first, end) that cached steps leave out; without, there are none. */
  deep?: readonly [number, number];
  /** Whether deep slots are fresh in every step that has them. */
  freshDeep?: boolean;
  /** The steps that have them; the first must. */
  fullSteps?: readonly number[];
  /** Whether steps after the first send changes, which receivers add to what they have. */
  compresses?: boolean;
  /** What the code does and a mutation leaves out. */
  without?: Part;
}

/** Parts of the protocol whose loss the checker must notice. */
export const parts = [
  "barrier in endOpen",
  "waitFor in swap",
  "event in swap",
  "event of the outer groups",
  "event of the deep groups",
  "deep stream",
  "waitForReaders, outer",
  "waitForReaders, deep",
  "gather_written",
  "gather_copied",
  "barrier in gather",
  "abort of waits",
] as const;
export type Part = (typeof parts)[number];

type Stream = "compute" | "exchange" | "deep";
type Depth = "outer" | "deep";

/** What a host thread does next. */
type HostStep =
  /** Allocates the shards, and takes the addresses of the other ranks' shards. */
  | { does: "open" }
  | { does: "readAddresses" }
  | { does: "record"; event: string; stream: Stream }
  | { does: "signal"; sequence: number }
  | { does: "waitFor"; rank: number; sequence: number }
  | { does: "waitEvent"; rank: number; event: string; stream: Stream }
  | { does: "barrier" }
  | ({ does: "work"; stream: Stream } & Work);

interface Work {
  depth: Depth;
  step: number;
  /** The last step that had the deep slots, perhaps this one. */
  lastFull: number;
  reads: Access[];
  writes: Access[];
}

/** A place in a rank's memory, with the value that is read or written. */
type Access = readonly [place: string, value: string];

export interface Verdict {
  states: number;
  executions: number;
  /** The first thing that is wrong, or null. */
  problem: string | null;
}

/** Explores all orders of the host threads. */
export function explore(options: ModelOptions): Verdict {
  const programs = Array.from({ length: options.ranks }, (_, rank) => programOf(options, rank));
  const seen = new Set<string>();
  const executions = new Set<string>();
  const stack: State[] = [startOf(options)];
  let problem: string | null = null;
  while (stack.length > 0 && problem === null) {
    const state = stack.pop() as State;
    const key = keyOf(state);
    if (seen.has(key)) continue;
    seen.add(key);
    problem = checkAddresses(programs, state);
    if (problem !== null) break;
    const next = successors(programs, state, options.without !== "abort of waits");
    if (next.length > 0) {
      stack.push(...next);
      continue;
    }
    const stuck = programs.findIndex((program, rank) => !hasEnded(program, state, rank));
    if (stuck >= 0) problem = `rank ${stuck} waits for ever at step ${state.at[stuck]}`;
    else if (state.failed < 0) {
      const captured = state.captured.map((list) => list.join(",")).join(";");
      if (!executions.has(captured)) problem = checkOrder(programs, state);
      executions.add(captured);
    }
  }
  return { states: seen.size, executions: executions.size, problem };
}

// --- the protocol ---

function programOf(options: ModelOptions, rank: number): HostStep[] {
  const program = new Program(options, rank);
  program.open();
  for (let step = 0; step < options.steps; step++) program.addStep(step);
  return program.steps;
}

/** What the thread of one rank does, step by step. */
class Program {
  readonly steps: HostStep[] = [];
  private readonly everyone: number[];
  private readonly others: number[];
  private step = 0;
  /** The first slot of which nothing was swapped with its group. */
  private groupFirst = 0;

  constructor(
    private readonly o: ModelOptions,
    private readonly rank: number,
  ) {
    this.everyone = Array.from({ length: o.ranks }, (_, i) => i);
    this.others = this.everyone.filter((i) => i !== rank);
  }

  /** Exchange.open, Transport.endOpen, and the key of the first step's graph. */
  open(): void {
    this.steps.push({ does: "open" });
    if ((this.o.readThere ?? []).length === 0) return;
    if (this.has("barrier in endOpen")) this.steps.push({ does: "barrier" });
    this.steps.push({ does: "readAddresses" });
  }

  addStep(step: number): void {
    const { slots, deep } = this.o;
    this.step = step;
    this.waitForReaders("outer");
    this.groupFirst = 0;
    const [first, end] = deep ?? [slots, slots];
    this.addSlots(0, first, "outer");
    if (this.hasDeep(step)) {
      this.waitForReaders("deep");
      this.addSlots(first, end, "deep");
      this.endPart("deep");
    }
    this.groupFirst = end;
    this.addSlots(end, slots, "outer");
    this.endPart("outer");
    this.gather(step);
    this.endGather();
  }

  /** SlotSwaps: the slots [first, end), and the groups that are complete before each of them. */
  private addSlots(first: number, end: number, depth: Depth): void {
    for (let slot = first; slot < end; slot++) {
      if (slot % this.o.groupSlots === 0) this.swapGroup(slot, depth);
      this.addSlot(slot);
    }
    this.swapGroup(end, depth);
  }

  private addSlot(slot: number): void {
    const { step } = this;
    const isFresh = this.isFresh(this.isDeep(slot) ? "deep" : "outer");
    const mine: Access = [own(this.rank, slot), versionOf(step, this.rank, slot)];
    this.write(step, slot, mine);
    const isThere = isFresh && (this.o.readThere ?? []).includes(slot);
    if (isFresh) {
      const [moved, awaited] = isThere ? [[], [slot]] : [[slot], []];
      this.swap(step, slot + 1, "slot", moved, awaited);
    }
    const seen = isFresh ? step : this.stepBefore(step, slot);
    // A stale step after a fresh one has what that one added.
    if (this.sendsChanges(seen, slot) && (isFresh || seen >= this.o.freshSteps))
      this.addChanges(seen, slot);
    const reads = this.others.map(
      (i): Access => [isThere ? own(i, slot) : this.theirs(i, slot), versionOf(seen, i, slot)],
    );
    this.work("compute", [...reads, mine], []);
  }

  /** What is left before slot `end`; the last group orders the end of the step in any case. */
  private swapGroup(end: number, depth: Depth): void {
    const first = this.groupFirst;
    if (first >= end) return;
    this.groupFirst = end;
    const group = Array.from({ length: end - first }, (_, i) => first + i);
    const isFresh = this.isFresh(depth);
    // In fresh steps what was not copied goes along for the next.
    const moved = isFresh ? group.filter((slot) => this.o.readThere?.includes(slot)) : group;
    if (moved.length === 0 && end < this.o.slots) return;
    this.swap(this.step, end, "group", moved, [], depth);
  }

  /** Transport.beginPart, PeerCopy.waitForReaders */
  private waitForReaders(depth: Depth): void {
    if (this.step === 0 || !this.has(`waitForReaders, ${depth}`)) return;
    for (const other of this.everyone) this.waitEvent(other, `${depth} part_read`, "compute");
  }

  private endPart(depth: Depth): void {
    this.steps.push({ does: "record", event: `${depth} part_read`, stream: this.streamOf(depth) });
  }

  private streamOf(depth: Depth): Stream {
    return depth === "deep" && this.has("deep stream") ? "deep" : "exchange";
  }

  private work(stream: Stream, reads: Access[], writes: Access[], depth: Depth = "outer"): void {
    let lastFull = this.step;
    while (this.o.deep && !this.hasDeep(lastFull)) lastFull--;
    this.steps.push({ does: "work", stream, depth, step: this.step, lastFull, reads, writes });
  }

  private hasDeep(step: number): boolean {
    return this.o.deep !== undefined && (this.o.fullSteps?.includes(step) ?? true);
  }

  /** The last step before this one that had the slot. */
  private stepBefore(step: number, slot: number): number {
    let before = step - 1;
    while (this.isDeep(slot) && !this.hasDeep(before)) before--;
    return before;
  }

  private isDeep(slot: number): boolean {
    const [first, end] = this.o.deep ?? [0, 0];
    return slot >= first && slot < end;
  }

  private isFresh(depth: Depth): boolean {
    return this.step < this.o.freshSteps || (depth === "deep" && this.o.freshDeep === true);
  }

  /** The patch's own shard; or the change from what the others have, and what they will have. */
  private write(step: number, slot: number, mine: Access): void {
    if (!this.sendsChanges(step, slot)) {
      this.work("compute", [], [mine]);
      return;
    }
    const before: Access = [mine[0], versionOf(this.stepBefore(step, slot), this.rank, slot)];
    const change: Access = [changeOf(this.rank, slot), mine[1]];
    this.work("compute", [before], [change, mine]);
  }

  /** changes.zig, receive: to views of the step before `seen`. */
  private addChanges(seen: number, slot: number): void {
    for (const other of this.others) {
      const version = versionOf(seen, other, slot);
      const view = this.theirs(other, slot);
      const reads: Access[] = [
        [this.theirChange(other, slot), version],
        [view, versionOf(this.stepBefore(seen, slot), other, slot)],
      ];
      this.work("compute", reads, [[view, version]]);
    }
  }

  /** Statistics are not compressed. */
  private sendsChanges(step: number, slot: number): boolean {
    const { compresses, readThere = [] } = this.o;
    return compresses === true && step > 0 && !readThere.includes(slot);
  }

  /** Endpoint.beginSwap, then PeerCopy.swap: slots that are copied, and that are waited for. */
  private swap(
    step: number,
    end: number,
    what: "slot" | "group",
    moved: readonly number[],
    awaited: readonly number[],
    depth: Depth = "outer",
  ): void {
    const { slots, slotEvents, groupSlots } = this.o;
    const stream: Stream = what === "slot" ? "compute" : this.streamOf(depth);
    const at = what === "slot" ? (end - 1) % slotEvents : Math.floor((end - 1) / groupSlots);
    const event = `${depth} ${what} ${at}`;
    const sequence = 2 * (step * slots + end - 1) + (what === "slot" ? 1 : 2);
    this.steps.push({ does: "record", event, stream: "compute" }, { does: "signal", sequence });
    const ordered: Part = `event of the ${depth} groups`;
    if (stream !== "compute" && this.has(ordered)) this.waitEvent(this.rank, event, stream);
    for (const other of moved.length + awaited.length > 0 ? this.others : []) {
      if (this.has("waitFor in swap")) this.steps.push({ does: "waitFor", rank: other, sequence });
      if (this.has("event in swap")) this.waitEvent(other, event, stream);
      if (moved.length === 0) continue;
      const place = (slot: number) =>
        this.sendsChanges(step, slot)
          ? { sent: changeOf(other, slot), received: this.theirChange(other, slot) }
          : { sent: own(other, slot), received: this.theirs(other, slot) };
      const reads = moved.map((s): Access => [place(s).sent, versionOf(step, other, s)]);
      const writes = moved.map((s): Access => [place(s).received, versionOf(step, other, s)]);
      this.work(stream, reads, writes, depth);
    }
  }

  private gather(step: number): void {
    const output = (of: number) => `output ${step} ${of}`;
    const sent: Access = [`gather ${this.rank}`, output(this.rank)];
    this.work("compute", [], [sent]);
    const event = "gather_written";
    if (this.has(event)) this.steps.push({ does: "record", event, stream: "compute" });
    if (this.has("barrier in gather")) this.steps.push({ does: "barrier" });
    for (const other of this.others) {
      if (this.has(event)) this.waitEvent(other, event, "compute");
      const reads: Access[] = [[`gather ${other}`, output(other)]];
      const writes: Access[] = [[`gathered ${this.rank} ${other}`, output(other)]];
      this.work("compute", reads, writes);
    }
  }

  private endGather(): void {
    const event = "gather_copied";
    this.steps.push({ does: "record", event, stream: "compute" }, { does: "barrier" });
    if (!this.has(event)) return;
    for (const other of this.everyone) this.waitEvent(other, event, "compute");
  }

  private waitEvent(rank: number, event: string, stream: Stream): void {
    this.steps.push({ does: "waitEvent", rank, event, stream });
  }

  private has(part: Part): boolean {
    return this.o.without !== part;
  }

  private theirs(other: number, slot: number): string {
    return `received ${this.rank} ${other} ${slot}`;
  }

  private theirChange(other: number, slot: number): string {
    return `received change ${this.rank} ${other} ${slot}`;
  }
}

function changeOf(rank: number, slot: number): string {
  return `change ${rank} ${slot}`;
}

function own(rank: number, slot: number): string {
  return `own ${rank} ${slot}`;
}

function versionOf(step: number, rank: number, slot: number): string {
  return `${step} of ${rank} ${slot}`;
}

// --- the host threads ---

interface State {
  /** The next step of each rank. */
  at: number[];
  /** By rank, for each of its `waitEvent` so far: how often the event had been recorded. */
  captured: number[][];
  /** The rank that has failed, and then all waits end; -1 for none. */
  failed: number;
}

function startOf({ ranks }: ModelOptions): State {
  const zeros = Array.from({ length: ranks }, () => 0);
  return { at: zeros, captured: zeros.map(() => []), failed: -1 };
}

function keyOf({ at, captured, failed }: State): string {
  return `${at.join(",")}|${captured.map((list) => list.join(",")).join(";")}|${failed}`;
}

/** Whether a rank is about to read an address that another has not written yet. */
function checkAddresses(programs: HostStep[][], state: State): string | null {
  if (state.failed >= 0) return null;
  const reader = programs.findIndex(
    (program, rank) => program[state.at[rank] ?? 0]?.does === "readAddresses",
  );
  const late = state.at.findIndex((at, rank) => rank !== reader && at === 0);
  if (reader < 0 || late < 0) return null;
  return `rank ${reader} reads where the shards of rank ${late} are before that has opened them`;
}

function hasEnded(program: HostStep[], state: State, rank: number): boolean {
  return state.failed === rank || (state.at[rank] ?? 0) >= program.length;
}

/** Every turn that a thread may take now. */
function successors(programs: HostStep[][], state: State, aborts: boolean): State[] {
  const next: State[] = [];
  for (const [rank, program] of programs.entries()) {
    if (hasEnded(program, state, rank)) continue;
    const step = program[state.at[rank] ?? 0] as HostStep;
    if (!isWaiting(programs, state, rank, step)) {
      const advanced = advance(programs, state, rank, step);
      // No other thread sees work that is queued: one order stands for all.
      if (step.does === "work") return [advanced];
      next.push(advanced);
    } else if (state.failed >= 0 && aborts) {
      // LocalRanks.abort: each wait of every rank fails.
      next.push({ ...state, at: replaced(state.at, rank, program.length) });
    }
  }
  // A rank fails at its signals and waits; elsewhere nobody could tell.
  if (state.failed < 0)
    for (const [rank, program] of programs.entries()) {
      const step = program[state.at[rank] ?? 0];
      if (step && step.does !== "work") next.push({ ...state, failed: rank, captured: [[]] });
    }
  return next;
}

function isWaiting(programs: HostStep[][], state: State, rank: number, step: HostStep): boolean {
  if (step.does === "waitFor") return signalled(programs, state, step.rank) < step.sequence;
  // A thread that comes to a barrier has told so before it waits there.
  if (step.does !== "barrier") return false;
  const mine = barriers(programs, state, rank) + 1;
  return programs.some((_, other) => other !== rank && reached(programs, state, other) < mine);
}

function advance(programs: HostStep[][], state: State, rank: number, step: HostStep): State {
  const at = replaced(state.at, rank, (state.at[rank] ?? 0) + 1);
  if (step.does !== "waitEvent" || state.failed >= 0) return { ...state, at };
  const count = recorded(programs, state, step.rank, step.event);
  const captured = state.captured.map((list, i) => (i === rank ? [...list, count] : list));
  return { ...state, at, captured };
}

function done(programs: HostStep[][], state: State, rank: number): HostStep[] {
  return (programs[rank] ?? []).slice(0, state.at[rank]);
}

function signalled(programs: HostStep[][], state: State, rank: number): number {
  const last = done(programs, state, rank).findLast(({ does }) => does === "signal");
  return last?.does === "signal" ? last.sequence : 0;
}

function recorded(programs: HostStep[][], state: State, rank: number, event: string): number {
  return done(programs, state, rank).filter((s) => s.does === "record" && s.event === event).length;
}

function barriers(programs: HostStep[][], state: State, rank: number): number {
  return done(programs, state, rank).filter(({ does }) => does === "barrier").length;
}

function reached(programs: HostStep[][], state: State, rank: number): number {
  const isThere = programs[rank]?.[state.at[rank] ?? 0]?.does === "barrier";
  return barriers(programs, state, rank) + Number(isThere);
}

function replaced(list: readonly number[], index: number, value: number): number[] {
  return list.map((old, i) => (i === index ? value : old));
}

// --- the streams ---

interface Node extends Work {
  rank: number;
  stream: Stream;
  after: number[];
}

/** What is wrong with what was queued, in some order of the GPUs; null where nothing is. */
function checkOrder(programs: HostStep[][], state: State): string | null {
  const nodes = nodesOf(programs, state);
  const before = closureOf(nodes);
  if (before === null) return "streams wait for each other in a circle";
  const late = checkOverlap(nodes, before);
  if (late !== null) return late;
  const writers = new Map<string, number[]>();
  for (const [i, node] of nodes.entries())
    for (const [place] of node.writes) writers.set(place, [...(writers.get(place) ?? []), i]);
  for (const [i, node] of nodes.entries()) {
    for (const [place] of node.writes)
      for (const j of writers.get(place) ?? [])
        if (i !== j && !before(i, j) && !before(j, i)) return `${place} is written twice at once`;
    for (const [place, value] of node.reads) {
      const all = writers.get(place) ?? [];
      const racing = all.find((j) => j !== i && !before(i, j) && !before(j, i));
      if (racing !== undefined) return `${place} is read by rank ${node.rank} while it is written`;
      const earlier = all.filter((j) => before(j, i));
      const last = earlier.find((j) => earlier.every((k) => k === j || before(k, j)));
      const found = nodes[last ?? -1]?.writes.find((write) => write[0] === place)?.[1] ?? "nothing";
      if (found !== value) return `${place} holds ${found}, and ${value} was to be read`;
    }
  }
  return null;
}

/** What travels of the deep slots holds up no cached step. */
function checkOverlap(nodes: Node[], before: (i: number, j: number) => boolean): string | null {
  for (const [i, { depth, stream, step }] of nodes.entries()) {
    if (depth !== "deep" || stream === "compute") continue;
    const waiting = nodes.find(
      (node, j) => node.lastFull === step && node.step > step && before(i, j),
    );
    if (waiting) return `cached step ${waiting.step} waits for deep slots of step ${step}`;
  }
  return null;
}

function nodesOf(programs: HostStep[][], state: State): Node[] {
  const nodes: Node[] = [];
  const records = new Map<string, number>();
  const waits: { node: number; record: string }[] = [];
  for (const [rank, program] of programs.entries()) {
    const last: Partial<Record<Stream, number>> = {};
    const counts = new Map<string, number>();
    let waitCount = 0;
    for (const step of program) {
      if (!("stream" in step)) continue;
      const tail = last[step.stream];
      const node = nodes.length;
      last[step.stream] = node;
      const nothing: Work = { depth: "outer", step: -1, lastFull: -1, reads: [], writes: [] };
      const { stream } = step;
      const work = step.does === "work" ? step : nothing;
      nodes.push({ ...work, rank, stream, after: tail === undefined ? [] : [tail] });
      if (step.does === "record") {
        const count = (counts.get(step.event) ?? 0) + 1;
        counts.set(step.event, count);
        records.set(`${rank} ${step.event} ${count}`, node);
      }
      if (step.does === "waitEvent") {
        const count = state.captured[rank]?.[waitCount] ?? 0;
        waitCount += 1;
        // An event that was never recorded holds nothing back.
        if (count > 0) waits.push({ node, record: `${step.rank} ${step.event} ${count}` });
      }
    }
  }
  for (const { node, record } of waits) nodes[node]?.after.push(records.get(record) ?? -1);
  return nodes;
}

/** Whether one node happens before another; null where they go in a circle. */
function closureOf(nodes: Node[]): ((i: number, j: number) => boolean) | null {
  const ancestors: (bigint | null | undefined)[] = nodes.map(() => undefined);
  const visit = (i: number): bigint | null => {
    const known = ancestors[i];
    if (known !== undefined) return known;
    ancestors[i] = null;
    let all = 0n;
    for (const before of nodes[i]?.after ?? []) {
      const theirs = visit(before);
      if (theirs === null) return null;
      all |= theirs | (1n << BigInt(before));
    }
    ancestors[i] = all;
    return all;
  };
  for (const i of nodes.keys()) if (visit(i) === null) return null;
  return (i, j) => (((ancestors[j] ?? 0n) as bigint) >> BigInt(i)) % 2n === 1n;
}
