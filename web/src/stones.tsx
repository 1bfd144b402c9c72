/** The mark of the project, the cairn that grows with a run, and a pebble for every peer. */

import type { JSX } from "preact";

/** Seven stones from the ground up, in a box of 120 × 132. */
const STONES = [
  "M9 119c2-9 19-15 52-15 31 0 48 6 50 15 1 7-15 10-51 10S7 127 9 119z",
  "M19 97c2-9 17-14 42-13 24 1 39 6 40 14 0 7-14 9-41 9s-43-3-41-10z",
  "M29 78c1-8 13-13 33-12 19 0 30 6 31 13 0 6-11 8-33 8s-33-3-31-9z",
  "M34 60c1-8 11-12 27-12 15 1 25 6 25 12s-10 8-27 8-26-2-25-8z",
  "M41 43c1-6 9-10 20-10s19 5 19 11-7 7-20 7-20-2-19-8z",
  "M46 28c1-6 7-9 15-9 7 0 13 4 13 9s-5 7-14 7-15-2-14-7z",
  "M51 13c1-6 5-9 10-9s9 4 9 9-4 7-10 7-10-2-9-7z",
];

export function Logo(): JSX.Element {
  return (
    <svg class="logo" viewBox="0 0 32 32" aria-hidden="true">
      <path d="M3.400 27.100c.5-3 4.300-4.700 12.800-4.500 8 .2 12.100 1.900 12.400 4.700.3 2.400-3.700 3.100-12.700 3.100S3 29.700 3.400 27.100z" />
      <path d="M7.200 18.900c.6-2.600 4-3.900 9.300-3.700 5.200.2 8.300 1.700 8.400 4 .1 2.200-3.300 2.900-9 2.800s-9.200-.8-8.700-3.100z" />
      <path d="M9.900 11.900c.3-2.300 2.800-3.600 6.600-3.500 3.600.1 5.900 1.400 5.900 3.400s-2.300 2.700-6.300 2.700-6.500-.6-6.200-2.600z" />
      <path class="top" d="M12.600 5c.2-2 1.700-3.300 3.700-3.300 2.100 0 3.500 1.400 3.500 3.200s-1.400 2.700-3.700 2.700S12.400 6.700 12.600 5z" />
    </svg>
  );
}

/** Stones are laid as the run goes on; the one being laid is marked. Decoration: the bar beside it says the same in words. */
export function Cairn(props: { progress: number }): JSX.Element {
  const laid = Math.floor(props.progress * STONES.length + 1e-9);
  const kind = (index: number) => (index < laid ? "laid" : index === laid ? "next" : "ahead");
  return (
    <svg class="cairn" viewBox="0 0 120 132" aria-hidden="true">
      {STONES.map((d, index) => (
        <path key={d} d={d} class={kind(index)} />
      ))}
    </svg>
  );
}

/** A pebble whose outline comes from the id, so that a peer looks the same everywhere. */
export function Pebble(props: { id: string }): JSX.Element {
  return (
    <svg class="pebble" viewBox="-12 -12 24 24" aria-hidden="true">
      <path d={outline(props.id)} style={{ fill: `var(--stone-${digit(props.id, 14) % 4})` }} />
    </svg>
  );
}

function digit(id: string, at: number): number {
  const value = Number.parseInt(id[at] ?? "0", 16);
  return Number.isNaN(value) ? 0 : value;
}

/** A closed smooth curve through seven points around the middle, each radius from one digit of the id. */
function outline(id: string): string {
  const corners = 7;
  const points = Array.from({ length: corners }, (_, index): [number, number] => {
    const radius = 7.5 + digit(id, index) / 5;
    const angle = (index / corners) * 2 * Math.PI;
    return [radius * Math.cos(angle), radius * 0.82 * Math.sin(angle)];
  });
  const middle = (a: [number, number], b: [number, number]) => `${((a[0] + b[0]) / 2).toFixed(2)} ${((a[1] + b[1]) / 2).toFixed(2)}`;
  const parts = points.map((point, index) => `Q${point[0].toFixed(2)} ${point[1].toFixed(2)} ${middle(point, points[(index + 1) % corners]!)}`);
  return `M${middle(points[corners - 1]!, points[0]!)}${parts.join("")}Z`;
}
