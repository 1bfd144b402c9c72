import { describe, expect, it } from "vitest";
import { mergePoint, mergeSample, mergeState, SAMPLES_MAX } from "../src/net/merge";
import type { CurvePoint, NetState, RunView, Sample } from "../src/net/types";

const point = (tokens: number, heldout_loss: number): CurvePoint => ({ tokens, heldout_loss, training_loss: null });
const sample = (round: number): Sample => ({ round, tokens: round * 10, prompt: "It", text: String(round) });
const state = (id: string, curve: CurvePoint[]): NetState => ({
  version: "1",
  run: { id } as RunView,
  curve,
  baseline: null,
  peers: [],
  samples: [],
  ledger: null,
  faults: [],
});

describe("mergeState", () => {
  it("keeps the curve that a state event leaves empty", () => {
    expect(mergeState(state("a", [point(1, 5)]), state("a", [])).curve).toEqual([point(1, 5)]);
  });
  it("starts over for another run", () => {
    expect(mergeState(state("a", [point(1, 5)]), state("b", [])).curve).toEqual([]);
  });
});

describe("mergePoint", () => {
  it("appends, replaces at equal tokens, and inserts in order", () => {
    const curve = mergePoint(mergePoint([], point(10, 5)), point(30, 4));
    expect(mergePoint(curve, point(30, 3))).toEqual([point(10, 5), point(30, 3)]);
    expect(mergePoint(curve, point(20, 3)).map((p) => p.tokens)).toEqual([10, 20, 30]);
  });
});

describe("mergeSample", () => {
  it("replaces a round's sample and keeps order", () => {
    const samples = [sample(1), sample(3)];
    expect(mergeSample(samples, sample(2)).map((s) => s.round)).toEqual([1, 2, 3]);
    expect(mergeSample(samples, { ...sample(3), text: "new" })[1]!.text).toBe("new");
  });
  it("stays bounded and keeps the first and the newest", () => {
    let samples: Sample[] = [];
    for (let round = 0; round < 500; round += 1) samples = mergeSample(samples, sample(round));
    expect(samples.length).toBeLessThanOrEqual(SAMPLES_MAX);
    expect(samples[0]!.round).toBe(0);
    expect(samples.at(-1)!.round).toBe(499);
  });
});
