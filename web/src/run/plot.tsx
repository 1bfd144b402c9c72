/** The drawn chart: uPlot behind a component. */

import { useEffect, useRef } from "preact/hooks";
import type { JSX } from "preact";
import uPlot from "uplot";
import { column, unionTokens, type LossKind } from "../curve";
import * as format from "../format";
import type { CurvePoint } from "../net/types";
import { isDark } from "../theme";

export type SeriesId = "swarm-heldout" | "baseline-heldout" | "swarm-training" | "baseline-training";

export interface SeriesShape {
  id: SeriesId;
  name: string;
  whose: "swarm" | "baseline";
  kind: LossKind;
  width: number;
  dash?: number[];
}

/** In the order of the legend. */
export const SERIES: SeriesShape[] = [
  { id: "swarm-heldout", name: "Swarm, held-out", whose: "swarm", kind: "heldout_loss", width: 2.5 },
  { id: "baseline-heldout", name: "Baseline, held-out", whose: "baseline", kind: "heldout_loss", width: 2, dash: [7, 4] },
  { id: "swarm-training", name: "Swarm, training", whose: "swarm", kind: "training_loss", width: 1.25 },
  { id: "baseline-training", name: "Baseline, training", whose: "baseline", kind: "training_loss", width: 1.25, dash: [3, 3] },
];

interface Props {
  swarm: CurvePoint[];
  baseline: CurvePoint[];
  hidden: ReadonlySet<SeriesId>;
  /** First and last tokens of the drawn range. */
  from: number;
  to: number;
  onHover: (tokens: number | null) => void;
}

const HEIGHT = 300;

export function LossChart(props: Props): JSX.Element {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const dark = isDark();

  useEffect(() => {
    const element = host.current!;
    const created = new uPlot(options(element, latest), data(latest.current), element);
    plot.current = created;
    const watcher = new ResizeObserver(() => created.setSize({ width: element.clientWidth, height: HEIGHT }));
    watcher.observe(element);
    return () => {
      watcher.disconnect();
      created.destroy();
      plot.current = null;
    };
  }, [dark]);

  useEffect(() => {
    const known = plot.current;
    if (known === null) return;
    known.batch(() => {
      SERIES.forEach((series, index) => {
        const show = !props.hidden.has(series.id);
        if (known.series[index + 1]!.show !== show) known.setSeries(index + 1, { show });
      });
      known.setData(data(props));
    });
  }, [props.swarm, props.baseline, props.hidden, props.from, props.to, dark]);

  return <div class="plot-host" ref={host} style={{ height: `${HEIGHT}px` }} />;
}

function data(props: Props): uPlot.AlignedData {
  const tokens = unionTokens(props.swarm, props.baseline);
  return [tokens, ...SERIES.map((series) => column(series.whose === "swarm" ? props.swarm : props.baseline, series.kind, tokens))];
}

/** Colours come from the style sheet, so that the chart follows the look of the page. */
function options(element: HTMLElement, latest: { current: Props }): uPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const axis: Partial<uPlot.Axis> = {
    stroke: colour("--muted"),
    font: `12px ${style.fontFamily}`,
    grid: { stroke: colour("--grid"), width: 1 },
    ticks: { show: false },
  };
  return {
    width: element.clientWidth,
    height: HEIGHT,
    padding: [8, 12, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
    scales: {
      x: { time: false, range: () => xRange(latest.current) },
      y: { range: (_, low, high) => yRange(low, high) },
    },
    axes: [
      { ...axis, size: 28, gap: 4, space: 70, values: (_, splits) => splits.map((at) => (at === 0 ? "0" : format.count(at))) },
      { ...axis, size: 40, gap: 6, space: 36, values: (_, splits) => splits.map((at) => at.toFixed(decimals(splits))) },
    ],
    series: [
      {},
      ...SERIES.map((series) => ({
        stroke: colour(`--line-${series.id}`),
        width: series.width,
        ...(series.dash ? { dash: series.dash } : {}),
        spanGaps: true,
        show: !latest.current.hidden.has(series.id),
        points: { show: false },
      })),
    ],
    hooks: {
      setCursor: [(plot) => latest.current.onHover(plot.cursor.left === undefined || plot.cursor.left < 0 ? null : plot.posToVal(plot.cursor.left, "x"))],
      draw: [(plot) => drawNewest(plot, latest.current, colour("--line-swarm-heldout"), colour("--surface"))],
    },
  };
}

function xRange(props: Props): [number, number] {
  return props.to > props.from ? [props.from, props.to] : [0, 1];
}

function yRange(low: number | null, high: number | null): [number, number] {
  if (low === null || high === null || !Number.isFinite(low) || !Number.isFinite(high)) return [0, 8];
  const space = Math.max(0.02, (high - low) * 0.06);
  return [Math.max(0, low - space), high + space];
}

/** As many decimals as the step between two marks has: 1 for 0.5, 2 for 0.25. */
function decimals(splits: number[]): number {
  const step = splits.length > 1 ? Math.abs(splits[1]! - splits[0]!) : 1;
  return [0, 1, 2].find((places) => Math.abs(step * 10 ** places - Math.round(step * 10 ** places)) < 1e-6) ?? 3;
}

/** A dot at the swarm's newest held-out value: where the run stands. */
function drawNewest(plot: uPlot, props: Props, fill: string, rim: string): void {
  if (props.hidden.has("swarm-heldout")) return;
  const last = props.swarm.findLast((point) => point.heldout_loss !== null);
  if (last === undefined) return;
  const ratio = devicePixelRatio || 1;
  const { ctx } = plot;
  ctx.save();
  ctx.beginPath();
  ctx.arc(plot.valToPos(last.tokens, "x", true), plot.valToPos(last.heldout_loss!, "y", true), 5 * ratio, 0, 2 * Math.PI);
  ctx.fillStyle = fill;
  ctx.strokeStyle = rim;
  ctx.lineWidth = 2 * ratio;
  ctx.fill();
  ctx.stroke();
  ctx.restore();
}
