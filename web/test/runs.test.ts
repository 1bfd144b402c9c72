import { expect, test } from "vitest";
import { read } from "../src/runs/read";

const answering = (status: number, body: unknown) => (async () => new Response(JSON.stringify(body), { status })) as unknown as typeof fetch;

test("the runs of an answer are taken as they are", async () => {
  const line = { id: "ab", name: "first", parameters: 1, state: "new", round: 0, rounds: 8, heldout_loss: null, gap: null, data: null, licence: null, parent: null, newest: true };
  expect(await read(answering(200, { runs: [line] }))).toEqual({ kind: "runs", runs: [line] });
});

test("a refusal says why and what to do", async () => {
  const refusal = { error: { message: "the disk is gone", hint: "bring it back" } };
  expect(await read(answering(500, refusal))).toEqual({ kind: "failed", reason: "the disk is gone", hint: "bring it back" });
  expect(await read(answering(404, {}))).toMatchObject({ kind: "failed", reason: "the node answers 404" });
});

test("an answer that is none, or no answer, is no crash", async () => {
  const page = (async () => new Response("<!doctype html>")) as unknown as typeof fetch;
  expect(await read(page)).toMatchObject({ kind: "failed", reason: "the node does not answer" });
  const away = (async () => {
    throw new TypeError("network");
  }) as unknown as typeof fetch;
  expect(await read(away)).toMatchObject({ kind: "failed" });
});
