/** The conversation: what was asked, what was written, and the one request under way. Kept in memory only. */

import { computed, effect, signal } from "@preact/signals";
import { ApiError, complete, servedModels, type Message, type ModelInfo, type Piece } from "./api";

export type Status = "waiting" | "streaming" | "done" | "stopped" | "failed";

/** The weights that wrote an answer: the short root comes with the answer; the round is null when the node moved on in between. */
export interface Checkpoint {
  round: number | null;
  root: string;
}

export interface Turn {
  id: number;
  /** The imported model that answers; null for the one that is trained here. */
  author: string | null;
  /** Whether it is a question and an answer, rather than one passage. */
  chat: boolean;
  opening: string;
  answer: string;
  status: Status;
  error: { message: string; hint: string | null } | null;
  checkpoint: Checkpoint | null;
  /** Tokens written, and seconds from the first to the newest. */
  tokens: number;
  seconds: number;
  /** Whether the length limit ended it. */
  cut: boolean;
}

export interface Settings {
  temperature: number;
  length: number;
}

const KEY = "cairn.chat";
const MODEL_KEY = "cairn.chat.model";

export const turns = signal<Turn[]>([]);
export const settings = signal<Settings>(storedSettings());
/** What the node serves; undefined before it said so. */
export const models = signal<ModelInfo[] | undefined>(undefined);
/** The model that the person chose, by name; it may be gone. */
const chosen = signal<string | null>(storedModel());
/** The model that would answer; null when there is none, undefined before the node said so. */
export const served = computed<ModelInfo | null | undefined>(() => {
  const known = models.value;
  return known && (known.find((model) => model.id === chosen.value) ?? known[0] ?? null);
});
export const busy = computed(() => turns.value.some((turn) => turn.status === "waiting" || turn.status === "streaming"));

let stopper: AbortController | null = null;
let nextId = 1;

effect(() => {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings.value));
  } catch {
    // Settings then last for this visit only.
  }
});

/** Asks which models and checkpoints answer now. */
export async function refreshServed(): Promise<ModelInfo | null> {
  models.value = await servedModels();
  return served.value ?? null;
}

/** Lets another model answer from now on. */
export function choose(id: string): void {
  chosen.value = id;
  try {
    localStorage.setItem(MODEL_KEY, id);
  } catch {
    // The choice then lasts for this visit only.
  }
}

/** Sends an opening; the text so far goes with it. */
export async function send(opening: string): Promise<void> {
  if (busy.value || opening.trim() === "") return;
  const turn: Turn = {
    id: nextId++,
    author: served.value?.imported ? served.value.id : null,
    chat: served.value?.chat ?? false,
    opening,
    answer: "",
    status: "waiting",
    error: null,
    checkpoint: null,
    tokens: 0,
    seconds: 0,
    cut: false,
  };
  const messages = history(turns.value, opening);
  turns.value = [...turns.value, turn];
  await answer(turn.id, messages);
}

/** Writes the last answer anew, with the newest checkpoint. */
export async function regenerate(): Promise<void> {
  const last = turns.value.at(-1);
  if (busy.value || last === undefined) return;
  turns.value = turns.value.slice(0, -1);
  await send(last.opening);
}

export function stop(): void {
  stopper?.abort();
}

export function clear(): void {
  stop();
  turns.value = [];
}

async function answer(id: number, messages: Message[]): Promise<void> {
  const own = new AbortController();
  stopper = own;
  try {
    const model = await refreshServed();
    if (model === null) throw new ApiError("there is no model to answer yet", "the first round of a run commits one; try again in a few seconds");
    edit(id, (turn) => ({ ...turn, author: model.imported ? model.id : null, chat: model.chat ?? false }));
    const { temperature, length } = settings.value;
    let first: number | null = null;
    for await (const piece of complete({ model: model.id, messages, temperature, max_tokens: length }, own.signal)) {
      const now = performance.now();
      if (piece.text !== "") first ??= now;
      edit(id, (turn) => extend(turn, piece, model, first === null ? 0 : (now - first) / 1000));
    }
    edit(id, (turn) => ({ ...turn, status: "done" }));
    await findRound(id);
  } catch (error) {
    if (own.signal.aborted) edit(id, (turn) => ({ ...turn, status: "stopped" }));
    else edit(id, (turn) => ({ ...turn, status: "failed", error: reason(error) }));
  } finally {
    if (stopper === own) stopper = null;
  }
}

/** An answer with one more piece. Pieces count as tokens until the server has told the number. */
function extend(turn: Turn, piece: Piece, model: ModelInfo, seconds: number): Turn {
  return {
    ...turn,
    status: "streaming",
    answer: turn.answer + piece.text,
    checkpoint: turn.checkpoint ?? answering(piece, model),
    tokens: piece.tokens ?? turn.tokens + (piece.text === "" ? 0 : 1),
    seconds: piece.text === "" ? turn.seconds : seconds,
    cut: turn.cut || piece.finish === "length",
  };
}

/** The node may have committed a round between the question and the answer; then it says so now. */
async function findRound(id: number): Promise<void> {
  if (turns.value.find((turn) => turn.id === id)?.checkpoint?.round !== null) return;
  const model = await refreshServed().catch(() => null);
  if (model === null) return;
  edit(id, (turn) => ({ ...turn, checkpoint: turn.checkpoint && { ...turn.checkpoint, round: roundOf(turn.checkpoint.root, model) } }));
}

function roundOf(root: string, model: ModelInfo): number | null {
  return model.state_root?.startsWith(root) ? (model.round ?? null) : null;
}

function answering(piece: Piece, model: ModelInfo): Checkpoint | null {
  const root = piece.fingerprint;
  if (!root) return null;
  return { root, round: roundOf(root, model) };
}

function history(before: Turn[], opening: string): Message[] {
  const past = before.filter((turn) => turn.answer !== "");
  return [
    ...past.flatMap((turn): Message[] => [
      { role: "user", content: turn.opening },
      { role: "assistant", content: turn.answer },
    ]),
    { role: "user", content: opening },
  ];
}

function edit(id: number, change: (turn: Turn) => Turn): void {
  turns.value = turns.value.map((turn) => (turn.id === id ? change(turn) : turn));
}

function reason(error: unknown): { message: string; hint: string | null } {
  if (error instanceof ApiError) return { message: error.message, hint: error.hint };
  return { message: error instanceof Error ? error.message : String(error), hint: null };
}

function storedModel(): string | null {
  try {
    return localStorage.getItem(MODEL_KEY);
  } catch {
    return null;
  }
}

function storedSettings(): Settings {
  const usual: Settings = { temperature: 0.7, length: 120 };
  try {
    const known = JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Settings>;
    return {
      temperature: bounded(known.temperature, 0, 1.5, usual.temperature),
      length: bounded(known.length, 16, 400, usual.length),
    };
  } catch {
    return usual;
  }
}

function bounded(value: unknown, low: number, high: number, usual: number): number {
  return typeof value === "number" && Number.isFinite(value) ? Math.min(high, Math.max(low, value)) : usual;
}
