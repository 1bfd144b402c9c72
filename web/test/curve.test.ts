import { describe, expect, it } from "vitest";
import { column, gapInWords, lossAt, newestGap, newestTokens, unionTokens } from "../src/curve";
import type { CurvePoint } from "../src/net/types";

const at = (tokens: number, heldout_loss: number | null, training_loss: number | null = null): CurvePoint => ({
  tokens,
  heldout_loss,
  training_loss,
});

const baseline = [at(0, 8), at(100, null, 6), at(200, 4), at(400, 3)];

describe("lossAt", () => {
  it("gives measured values exactly", () => expect(lossAt(baseline, "heldout_loss", 200)).toBe(4));
  it("interpolates across points that lack the value", () => expect(lossAt(baseline, "heldout_loss", 100)).toBe(6));
  it("interpolates between points", () => expect(lossAt(baseline, "heldout_loss", 300)).toBe(3.5));
  it("makes nothing up outside the range", () => {
    expect(lossAt(baseline, "heldout_loss", 401)).toBeNull();
    expect(lossAt(baseline, "training_loss", 50)).toBeNull();
    expect(lossAt([], "heldout_loss", 0)).toBeNull();
  });
});

describe("newestTokens", () => {
  it("is where a held-out loss was measured last", () => {
    expect(newestTokens([at(1, 5, 5), at(2, null, 4)])).toBe(1);
    expect(newestTokens([at(1, null, 5), at(2, null, 4)])).toBe(2);
    expect(newestTokens([])).toBeNull();
  });
});

describe("newestGap", () => {
  it("compares at equal tokens", () => {
    const gap = newestGap([at(100, 7), at(300, 3.57)], baseline, "heldout_loss")!;
    expect(gap.tokens).toBe(300);
    expect(gap.baseline).toBe(3.5);
    expect(gap.fraction).toBeCloseTo(0.02, 12);
  });
  it("steps back to the newest point that the baseline covers and that has a value", () => {
    expect(newestGap([at(200, 4.4), at(300, null), at(500, 2)], baseline, "heldout_loss")!.tokens).toBe(200);
  });
  it("is absent without overlap", () => expect(newestGap([at(500, 2)], baseline, "heldout_loss")).toBeNull());
});

describe("gapInWords", () => {
  const gap = (fraction: number) => gapInWords({ tokens: 1, swarm: 1, baseline: 1, fraction }, "it").replace("\u202f", " ");
  it("says which way, and does not call noise a difference", () => {
    expect(gap(0.012)).toBe("1.2 % above it");
    expect(gap(-0.012)).toBe("1.2 % below it");
    expect(gap(0.0004)).toBe("level with it");
  });
});

describe("columns for the chart", () => {
  it("aligns two curves on one axis", () => {
    const swarm = [at(100, 5), at(300, 4)];
    const tokens = unionTokens(swarm, baseline);
    expect(tokens).toEqual([0, 100, 200, 300, 400]);
    expect(column(swarm, "heldout_loss", tokens)).toEqual([null, 5, null, 4, null]);
  });
});
