/** What the page knows of the node, kept fresh by `GET /net/state` and the events of `GET /net/events`. */

import { computed, signal } from "@preact/signals";
import { newestGap } from "../curve";
import { mergePoint, mergeSample, mergeState } from "./merge";
import type { CurvePoint, NetState, Pause, Sample } from "./types";

export type Connection =
  | { kind: "connecting" }
  | { kind: "live" }
  /** `retryAt` is on the clock of `performance.now()`. */
  | { kind: "lost"; retryAt: number };

export const state = signal<NetState | null>(null);
export const connection = signal<Connection>({ kind: "connecting" });

export const run = computed(() => state.value?.run ?? null);
export const curve = computed(() => state.value?.curve ?? EMPTY_CURVE);
export const baseline = computed(() => state.value?.baseline ?? null);
export const samples = computed(() => state.value?.samples ?? EMPTY_SAMPLES);
export const gap = computed(() => newestGap(curve.value, baseline.value?.points ?? [], "heldout_loss"));

const EMPTY_CURVE: CurvePoint[] = [];
const EMPTY_SAMPLES: Sample[] = [];
const RETRY_MS_MAX = 10_000;

let source: EventSource | null = null;
let timer: ReturnType<typeof setTimeout> | null = null;
let attempt = 0;

/** Opens the stream of events, then reads the whole state: what happens in between arrives as an event and is merged. */
export function connect(): void {
  if (timer !== null) clearTimeout(timer);
  timer = null;
  source?.close();
  const opened = new EventSource("/net/events");
  source = opened;
  opened.addEventListener("open", () => void readState(opened));
  opened.addEventListener("error", () => lose(opened));
  on<NetState>(opened, "state", (next) => {
    const before = state.value;
    state.value = mergeState(before, next);
    if (before !== null && before.run?.id !== next.run?.id) void readState(opened);
  });
  on<CurvePoint>(opened, "point", (point) => edit((known) => ({ ...known, curve: mergePoint(known.curve, point) })));
  on<Sample>(opened, "sample", (sample) => edit((known) => ({ ...known, samples: mergeSample(known.samples, sample) })));
}

/** Retries at once when the person asks, or comes back to the page. */
export function retryNow(): void {
  if (connection.value.kind === "lost") connect();
}

/** Asks the node to pause or to go on; gives why it did not, in words. */
export async function control(what: "pause" | "resume"): Promise<string | null> {
  try {
    const response = await fetch(`/net/${what}`, { method: "POST", headers: { "content-type": "application/json" }, body: "{}" });
    const answer = (await response.json()) as { paused?: Pause | null; error?: { message: string } };
    if (!response.ok) return answer.error?.message ?? `status ${response.status}`;
    edit((known) => (known.machine ? { ...known, machine: { ...known.machine, paused: answer.paused ?? null } } : known));
    return null;
  } catch {
    return "the node does not answer";
  }
}

async function readState(from: EventSource): Promise<void> {
  try {
    const response = await fetch("/net/state", { headers: { accept: "application/json" } });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const read = (await response.json()) as NetState;
    if (source !== from) return;
    state.value = read;
    attempt = 0;
    connection.value = { kind: "live" };
  } catch {
    lose(from);
  }
}

function lose(from: EventSource): void {
  if (source !== from) return;
  from.close();
  source = null;
  attempt += 1;
  // A node may end a slow listener's stream: the first retry comes at once, and nobody has to hear of it.
  const wait = attempt === 1 ? 200 : Math.min(RETRY_MS_MAX, 500 * 2 ** attempt);
  connection.value = attempt === 1 ? { kind: "connecting" } : { kind: "lost", retryAt: performance.now() + wait };
  timer = setTimeout(connect, wait);
}

function edit(change: (known: NetState) => NetState): void {
  if (state.value !== null) state.value = change(state.value);
}

function on<T>(from: EventSource, name: string, take: (value: T) => void): void {
  from.addEventListener(name, (event) => take(JSON.parse((event as MessageEvent<string>).data) as T));
}
