import { describe, expect, it } from "vitest";
import * as format from "../src/format";

const plain = (text: string) => text.replaceAll("\u202f", " ");

describe("prose", () => {
  const long = "x".repeat(60);
  it("joins lines that were cut to a width", () => expect(format.prose(`short\n${long}\nnext`)).toBe(`short ${long} next`));
  it("keeps paragraphs, indents and short lines", () => {
    expect(format.prose(`${long}\n\nnext`)).toBe(`${long}\n\nnext`);
    expect(format.prose(`${long}\n  indented\nverse\nverse`)).toBe(`${long}\n  indented\nverse\nverse`);
  });
  it("shows no break before its next line is known", () => expect(format.prose(`${long}\n\n`)).toBe(long));
});

describe("numbers", () => {
  it.each([
    [0, "0"],
    [7, "7"],
    [999, "999"],
    [999.6, "1.00 k"],
    [1234, "1.23 k"],
    [99_960, "100 k"],
    [1_234_567, "1.23 M"],
    [12_345_678_901, "12.3 G"],
    [Number.NaN, "–"],
  ])("counts %s as %s", (value, text) => expect(plain(format.count(value))).toBe(text));

  it("names one token in the singular", () => {
    expect(plain(format.tokens(1))).toBe("1 token");
    expect(plain(format.tokens(1_200_000))).toBe("1.20 M tokens");
  });

  it("joins rates and sizes to their units", () => {
    expect(plain(format.rate(12_345))).toBe("12.3 k tok/s");
    expect(plain(format.rate(8.25))).toBe("8.3 tok/s");
    expect(plain(format.bytes(512))).toBe("512 B");
    expect(plain(format.bytesPerToken(3421))).toBe("3.42 kB/token");
    expect(plain(format.bytesPerToken(0.84))).toBe("0.8 B/token");
  });

  it.each([
    [0, "0 s"],
    [0.42, "0.4 s"],
    [42, "42 s"],
    [59.7, "1 m 00 s"],
    [80, "1 m 20 s"],
    [3599.8, "1 h 00 m"],
    [7500, "2 h 05 m"],
    [-1, "–"],
  ])("writes %s seconds as %s", (value, text) => expect(plain(format.duration(value))).toBe(text));

  it("signs percentages, and shows zero without a direction", () => {
    expect(plain(format.signedPercent(0.0123))).toBe("+1.2 %");
    expect(plain(format.signedPercent(-0.004))).toBe("−0.4 %");
    expect(plain(format.signedPercent(-0.0001))).toBe("±0.0 %");
    expect(plain(format.percent(null))).toBe("–");
  });

  it("turns micro-shares into shares", () => {
    expect(plain(format.shares(12_500_000))).toBe("12.5");
    expect(plain(format.shares(1_234_000_000))).toBe("1.23 k");
  });
});
