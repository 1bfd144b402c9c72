import { afterEach, describe, expect, it, vi } from "vitest";
import { ApiError, complete, type Piece } from "../src/chat/api";
import { eventData } from "../src/chat/stream";

/** A body that arrives in the given parts. */
function body(...parts: (string | Uint8Array)[]): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return new ReadableStream({
    start(controller) {
      for (const part of parts) controller.enqueue(typeof part === "string" ? encoder.encode(part) : part);
      controller.close();
    },
  });
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

describe("eventData", () => {
  it("joins what the network cut, whatever the line ends", async () => {
    expect(await all(eventData(body("data: a", "b\n", "\ndata: c\r\n\r", "\n: a comment\n\ndata:d\ndata:e\n\n")))).toEqual(["ab", "c", "d\ne"]);
  });
  it("keeps a character whose bytes arrive apart", async () => {
    const bytes = new TextEncoder().encode("data: é\n\n");
    expect(await all(eventData(body(bytes.slice(0, 7), bytes.slice(7))))).toEqual(["é"]);
  });
});

describe("complete", () => {
  afterEach(() => vi.unstubAllGlobals());
  const request = { model: "m", messages: [], temperature: 1, max_tokens: 2 };
  const answer = (response: Response): Promise<Piece[]> => {
    vi.stubGlobal("fetch", async () => response);
    return all(complete(request, new AbortController().signal));
  };
  const chunk = (value: unknown) => `data: ${JSON.stringify(value)}\n\n`;

  it("yields text, the reason to end and the usage", async () => {
    const pieces = await answer(
      new Response(
        body(
          chunk({ model: "m", choices: [{ delta: { role: "assistant" } }] }),
          chunk({ model: "m", choices: [{ delta: { content: " one" } }] }),
          chunk({ model: "m", choices: [{ delta: {}, finish_reason: "length" }] }),
          chunk({ model: "m", choices: [], usage: { completion_tokens: 7 } }),
          "data: [DONE]\n\n",
        ),
      ),
    );
    expect(pieces.map((piece) => piece.text).join("")).toBe(" one");
    expect(pieces.find((piece) => piece.finish)?.finish).toBe("length");
    expect(pieces.at(-1)!.tokens).toBe(7);
  });

  it("passes on the hint of an error", async () => {
    const failed = answer(Response.json({ error: { message: "too long", hint: "clear it" } }, { status: 400 }));
    await expect(failed).rejects.toMatchObject({ message: "too long", hint: "clear it" });
  });

  it("passes on an error inside the stream", async () => {
    const failed = answer(new Response(body(chunk({ error: { message: "gone", hint: null } }))));
    await expect(failed).rejects.toBeInstanceOf(ApiError);
  });

  it("notices an answer that broke off", async () => {
    const failed = answer(new Response(body(chunk({ choices: [{ delta: { content: "a" } }] }))));
    await expect(failed).rejects.toMatchObject({ message: "the connection ended before the answer was complete" });
  });
});
