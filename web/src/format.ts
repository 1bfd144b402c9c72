/** Numbers as people read them. A narrow no-break space joins a number to its unit. */

export const THIN = "\u202f";
const NONE = "–";

const STEPS: [number, string][] = [
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
];

/** Three significant digits, with a decimal prefix from 1,000 up: `999`, `1.23 k`, `12.3 M`. Numbers under 1,000 keep at most `small` decimals. */
function scaled(value: number, small: number): [string, string] {
  if (!Number.isFinite(value)) return [NONE, ""];
  const size = Math.abs(value);
  for (const [step, prefix] of STEPS) {
    if (size >= step * 0.9995) return [three(value / step), prefix];
  }
  return [value.toFixed(size >= 100 || Number.isInteger(value) ? 0 : size >= 10 ? Math.min(1, small) : small), ""];
}

/** Three significant digits of a number from 1 to 1,000. */
function three(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}

function join(number: string, unit: string): string {
  return unit === "" ? number : number + THIN + unit;
}

/** `812`, `1.23 M`. */
export function count(value: number): string {
  const [number, prefix] = scaled(value, 0);
  return join(number, prefix);
}

/** `1.23 M tokens`. */
export function tokens(value: number): string {
  return `${count(value)} ${value === 1 ? "token" : "tokens"}`;
}

/** `12.3 k tok/s`. */
export function rate(value: number): string {
  const [number, prefix] = scaled(value, 1);
  return join(number, `${prefix === "" ? "" : `${prefix} `}tok/s`);
}

/** `3.42 kB`. */
export function bytes(value: number): string {
  const [number, prefix] = scaled(value, 1);
  return join(number, `${prefix}B`);
}

/** `3.42 kB/token`. */
export function bytesPerToken(value: number): string {
  return `${bytes(value)}/token`;
}

/** `0.4 s`, `42 s`, `1 m 20 s`, `2 h 05 m`. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return NONE;
  if (seconds < 9.95) return join(seconds < 0.05 ? "0" : seconds.toFixed(1), "s");
  const whole = Math.round(seconds);
  if (whole < 60) return join(String(whole), "s");
  if (whole < 3600) return `${join(String(Math.floor(whole / 60)), "m")} ${join(pad(whole % 60), "s")}`;
  const minutes = Math.round(whole / 60);
  return `${join(String(Math.floor(minutes / 60)), "h")} ${join(pad(minutes % 60), "m")}`;
}

function pad(value: number): string {
  return String(value).padStart(2, "0");
}

/** Nats per token, three decimals. */
export function loss(value: number | null | undefined): string {
  return value === null || value === undefined || !Number.isFinite(value) ? NONE : value.toFixed(3);
}

/** `12.3 %`. */
export function percent(fraction: number | null, decimals = 1): string {
  return fraction === null || !Number.isFinite(fraction) ? NONE : join((fraction * 100).toFixed(decimals), "%");
}

/** `+1.2 %` or `−0.4 %`, with a real minus sign. */
export function signedPercent(fraction: number, decimals = 1): string {
  const text = (Math.abs(fraction) * 100).toFixed(decimals);
  const sign = Number(text) === 0 ? "±" : fraction > 0 ? "+" : "−";
  return join(sign + text, "%");
}

/** `72×`. */
export function times(value: number): string {
  return Number.isFinite(value) && value > 0 ? `${value.toFixed(value >= 100 ? 0 : value >= 10 ? 0 : 1)}×` : NONE;
}

/** Micro-shares as shares: `12.5`, `1.23 k`. */
export function shares(micro: number): string {
  const [number, prefix] = scaled(micro / 1e6, 2);
  return join(number, prefix);
}

/** The first eight digits of a hash or an id. */
export function short(hex: string | null | undefined): string {
  return hex ? hex.slice(0, 8) : NONE;
}

/** A line shorter than this ends on purpose: verse, a heading, code. */
const WRAPPED_MIN = 50;

/**
 * Text for a box of any width. Books come with their lines cut at about 72 characters, and a model learns to cut them too; such cuts become
 * spaces. Blank lines, indented lines and breaks after short lines stay.
 */
export function prose(text: string): string {
  const lines = text.replace(/\n+$/, "").split("\n");
  return lines.reduce((before, line, index) => {
    const last = lines[index - 1]!;
    const cut = last.trim() !== "" && line.trim() !== "" && !/^\s/.test(line) && (index === 1 || last.length >= WRAPPED_MIN);
    return `${before}${cut ? (last.endsWith(" ") ? "" : " ") : "\n"}${line}`;
  });
}
