/** How events change what the page knows; pure, so that it can be tested without a server. */

import type { CurvePoint, NetState, Sample } from "./types";

/** Samples kept by the page; the node thins its own list to the same number. */
export const SAMPLES_MAX = 64;

/** Takes the new run, peers, ledger and faults, and keeps the curves and samples, which a `state` event leaves empty. */
export function mergeState(before: NetState | null, next: NetState): NetState {
  if (before === null || before.run?.id !== next.run?.id) return next;
  return {
    ...next,
    curve: next.curve.length > 0 ? next.curve : before.curve,
    baseline: next.baseline ?? before.baseline,
    samples: next.samples.length > 0 ? next.samples : before.samples,
  };
}

/** Inserts a point by its tokens; a point at known tokens replaces the old one. */
export function mergePoint(curve: CurvePoint[], point: CurvePoint): CurvePoint[] {
  let at = curve.length;
  while (at > 0 && curve[at - 1]!.tokens >= point.tokens) at -= 1;
  const same = curve[at]?.tokens === point.tokens;
  return [...curve.slice(0, at), point, ...curve.slice(same ? at + 1 : at)];
}

/** Adds a sample by its round; when there are too many, every second of the older half goes, so that the beginning stays visible. */
export function mergeSample(samples: Sample[], sample: Sample): Sample[] {
  const others = samples.filter((known) => known.round !== sample.round);
  const all = [...others, sample].sort((a, b) => a.round - b.round);
  if (all.length <= SAMPLES_MAX) return all;
  const half = all.length / 2;
  return all.filter((_, index) => index === 0 || index > half || index % 2 === 0);
}
