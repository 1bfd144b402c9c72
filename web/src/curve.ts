/** Reading values off loss curves. */

import { percent } from "./format";
import type { CurvePoint } from "./net/types";

export type LossKind = "training_loss" | "heldout_loss";

/** Straight-line value of a curve at `tokens`; null outside its measured range: no value is made up beyond the ends. */
export function lossAt(points: CurvePoint[], kind: LossKind, tokens: number): number | null {
  let before: CurvePoint | null = null;
  for (const point of points) {
    const value = point[kind];
    if (value === null) continue;
    if (point.tokens === tokens) return value;
    if (point.tokens > tokens) {
      if (before === null) return null;
      const part = (tokens - before.tokens) / (point.tokens - before.tokens);
      return before[kind]! + part * (value - before[kind]!);
    }
    before = point;
  }
  return null;
}

/** The tokens of the newest point that has a held-out loss, or else of the newest point. */
export function newestTokens(points: CurvePoint[]): number | null {
  return (points.findLast((point) => point.heldout_loss !== null) ?? points.at(-1))?.tokens ?? null;
}

export interface Gap {
  /** Where both curves are read. */
  tokens: number;
  swarm: number;
  baseline: number;
  /** (swarm − baseline) / baseline: above zero, the swarm is behind. */
  fraction: number;
}

/** The gap at the newest swarm point that the baseline covers. */
export function newestGap(swarm: CurvePoint[], baseline: CurvePoint[], kind: LossKind): Gap | null {
  for (let index = swarm.length - 1; index >= 0; index -= 1) {
    const point = swarm[index]!;
    const value = point[kind];
    if (value === null) continue;
    const reference = lossAt(baseline, kind, point.tokens);
    if (reference === null || reference === 0) continue;
    return { tokens: point.tokens, swarm: value, baseline: reference, fraction: value / reference - 1 };
  }
  return null;
}

/** A gap in words: `0.4 % above the baseline`. Lower loss is better, so above is behind. */
export function gapInWords(gap: Gap, reference: string): string {
  const size = percent(Math.abs(gap.fraction));
  if (Number.parseFloat(size) === 0) return `level with ${reference}`;
  return `${size} ${gap.fraction > 0 ? "above" : "below"} ${reference}`;
}

/** All token positions of both curves, ascending, each once. */
export function unionTokens(a: CurvePoint[], b: CurvePoint[]): number[] {
  return [...new Set([...a, ...b].map((point) => point.tokens))].sort((x, y) => x - y);
}

/** A curve's values at `tokens`, null where it has no point of its own. */
export function column(points: CurvePoint[], kind: LossKind, tokens: number[]): (number | null)[] {
  const known = new Map(points.map((point) => [point.tokens, point[kind]]));
  return tokens.map((at) => known.get(at) ?? null);
}
