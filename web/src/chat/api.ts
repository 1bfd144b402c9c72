/** The part of the OpenAI API that the page uses. */

import { eventData } from "./stream";

export interface Message {
  role: "user" | "assistant";
  content: string;
}

export interface Request {
  model: string;
  messages: Message[];
  temperature: number;
  max_tokens: number;
}

export interface Piece {
  text: string;
  /** The short root of the weights. */
  fingerprint: string | null;
  finish: string | null;
  /** Tokens written in all, when the server has said so. */
  tokens: number | null;
}

/** An answer of the API that is not a completion: what went wrong, and what to do. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly hint: string | null,
  ) {
    super(message);
  }
}

/** What `GET /v1/models` says of a model. */
export interface ModelInfo {
  id: string;
  round?: number;
  state_root?: string;
  /** Whether others trained it. */
  imported?: boolean;
  /** Whether it answers, rather than continuing text. */
  chat?: boolean;
  title?: string;
  licence?: string | null;
  parameters?: number;
  context?: number;
  /** Parts on as many peers, through which it answers; absent or null when the node holds all of it. */
  stages?: number | null;
}

interface ErrorBody {
  error?: { message?: string; hint?: string | null };
}

interface Chunk extends ErrorBody {
  system_fingerprint?: string | null;
  choices?: { delta?: { content?: string | null }; finish_reason?: string | null }[];
  usage?: { completion_tokens?: number } | null;
}

/** The models the node serves: the one that is trained, once it has a committed checkpoint, and those that others trained. */
export async function servedModels(): Promise<ModelInfo[]> {
  const response = await reach("/v1/models", { headers: { accept: "application/json" } });
  if (!response.ok) throw await apiError(response);
  const list = (await response.json()) as { data?: ModelInfo[] };
  return list.data ?? [];
}

/** Streams a completion. Throws `ApiError`, or the `AbortError` of `stop`. */
export async function* complete(request: Request, stop: AbortSignal): AsyncGenerator<Piece> {
  const response = await reach("/v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json", accept: "text/event-stream" },
    body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
    signal: stop,
  });
  if (!response.ok || response.body === null) throw await apiError(response);
  let ended = false;
  try {
    for await (const data of eventData(response.body)) {
      // The stream is read to its end: leaving early would count as an aborted request.
      if (data === "[DONE]") continue;
      const chunk = JSON.parse(data) as Chunk;
      if (chunk.error) throw new ApiError(chunk.error.message ?? "the answer broke off", chunk.error.hint ?? null);
      const piece = read(chunk);
      ended ||= piece.finish !== null;
      yield piece;
    }
  } catch (error) {
    if (error instanceof ApiError || stop.aborted) throw error;
    throw brokenOff();
  }
  if (!ended) throw brokenOff();
}

function read(chunk: Chunk): Piece {
  const choice = chunk.choices?.[0];
  return {
    text: choice?.delta?.content ?? "",
    fingerprint: chunk.system_fingerprint ?? null,
    finish: choice?.finish_reason ?? null,
    tokens: chunk.usage?.completion_tokens ?? null,
  };
}

/** A `fetch` whose failure to connect has a hint too. */
async function reach(path: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(path, init);
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ApiError("the node does not answer", "check that `cairn up` or `cairn serve` is still running in its terminal");
  }
}

function brokenOff(): ApiError {
  return new ApiError("the connection ended before the answer was complete", "what arrived is kept; regenerate to try again");
}

async function apiError(response: Response): Promise<ApiError> {
  try {
    const body = (await response.json()) as ErrorBody;
    if (body.error?.message) return new ApiError(body.error.message, body.error.hint ?? null);
  } catch {
    // Not the API's error form: say the status instead.
  }
  return new ApiError(`the node answered with status ${response.status}`, "look at the terminal that runs it");
}
