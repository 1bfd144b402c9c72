/** Reads `GET /runs`. */

import type { RunLine } from "../net/types";

export type Listed =
  | { kind: "reading" }
  | { kind: "runs"; runs: RunLine[] }
  /** Why, and what to do. */
  | { kind: "failed"; reason: string; hint: string };

interface Refusal {
  error?: { message?: string; hint?: string };
}

/** Never fails: what went wrong is a value. */
export async function read(ask: typeof fetch = fetch): Promise<Listed> {
  try {
    // Without this header the answer is this page.
    const response = await ask("/runs", { headers: { accept: "application/json" } });
    const body = (await response.json()) as { runs?: RunLine[] } & Refusal;
    if (response.ok && Array.isArray(body.runs)) return { kind: "runs", runs: body.runs };
    return { kind: "failed", reason: body.error?.message ?? `the node answers ${response.status}`, hint: body.error?.hint ?? "" };
  } catch {
    return { kind: "failed", reason: "the node does not answer", hint: "It may be starting again; the page tries once more in a moment." };
  }
}
