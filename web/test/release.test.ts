import { expect, test } from "vitest";
import { releaseInWords } from "../src/release";

test("says when the weights open, and that split ones never do", () => {
  expect(releaseInWords({ round: 0 })).toBe("Weights: open, with every round.");
  expect(releaseInWords({ round: 9, release: "split" })).toContain("split for good");
  const after = { open_after: { rounds: 10 } };
  expect(releaseInWords({ round: 7, release: after })).toBe("Weights: closed until 10 rounds are done, 3 to go.");
  expect(releaseInWords({ round: 10, release: after })).toBe("Weights: open since round 10 closed.");
});
