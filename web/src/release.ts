/** When the weights of a run may leave its stages, in one line. */

import type { RunView } from "./net/types";

export function releaseInWords(run: Pick<RunView, "release" | "round">): string {
  const release = run.release ?? "open_now";
  if (release === "open_now") return "Weights: open, with every round.";
  if (release === "split") return "Weights: split for good, so that no operator may hold two stages.";
  const { rounds } = release.open_after;
  return run.round >= rounds ? `Weights: open since round ${rounds} closed.` : `Weights: closed until ${rounds} rounds are done, ${rounds - run.round} to go.`;
}
