/** The loss of the swarm beside the centralised baseline: legend, readings, and the same numbers as a table. */

import { computed, signal } from "@preact/signals";
import type { JSX } from "preact";
import { gapInWords, lossAt, newestTokens } from "../curve";
import * as format from "../format";
import { baseline, curve, gap, run } from "../net/store";
import type { CurvePoint } from "../net/types";
import { Panel } from "../parts";
import { LossChart, SERIES, type SeriesId } from "./plot";
import { CurveTable } from "./table";

/** Tokens under the pointer; null without one. */
const hover = signal<number | null>(null);
const hidden = signal<ReadonlySet<SeriesId>>(new Set<SeriesId>(["baseline-training"]));
/** Whether only the newer half is drawn, where small gaps show. */
const close = signal(false);

const tokensEnd = computed(() => Math.max(run.value?.tokens_target ?? 0, baseline.value?.points.at(-1)?.tokens ?? 0, curve.value.at(-1)?.tokens ?? 0));

export function ChartPanel(): JSX.Element {
  const swarm = curve.value;
  const reference = baseline.value?.points ?? [];
  const newest = swarm.at(-1)?.tokens ?? 0;
  const from = close.value ? newest / 2 : 0;
  const to = close.value && newest > 0 ? newest * 1.03 : tokensEnd.value;
  return (
    <Panel title={baseline.value ? "Loss, beside centralised training" : "Loss"} class="chart" aside={baseline.value && <GapFigure />}>
      <div class="chart-tools">
        <p class="axis-name">loss (nats per token)</p>
        <div class="segments" role="group" aria-label="Part of the run">
          <button type="button" aria-pressed={!close.value} onClick={() => (close.value = false)}>
            Whole run
          </button>
          <button type="button" aria-pressed={close.value} disabled={swarm.length < 3} onClick={() => (close.value = true)}>
            Newer half
          </button>
        </div>
      </div>
      <div class="plot" role="img" aria-label={inWords(swarm, reference)} data-swarm-points={swarm.length} data-baseline-points={reference.length}>
        <LossChart swarm={swarm} baseline={reference} hidden={hidden.value} from={from} to={to} onHover={(tokens) => (hover.value = tokens)} />
        {swarm.length === 0 && <p class="plot-note">{emptyNote(reference)}</p>}
      </div>
      <p class="axis-name x">tokens trained</p>
      <Legend swarm={swarm} baseline={reference} />
      <p class="chart-note">
        {baseline.value ? (
          `Baseline: ${baseline.value.label}`
        ) : (
          <>
            No centralised baseline is recorded for this recipe; <code>cairn train --solo</code> measures one.
          </>
        )}
      </p>
      <CurveTable swarm={swarm} baseline={reference} />
    </Panel>
  );
}

function emptyNote(reference: CurvePoint[]): string {
  const before = reference.length > 0 ? "The dashed line is the baseline. " : "";
  return `${before}The swarm's first point appears when round 1 ends.`;
}

function GapFigure(): JSX.Element {
  const now = gap.value;
  return (
    <p class="gap" title="held-out loss of the swarm over that of the baseline, at equal tokens; above zero, the swarm is behind">
      <span>{now ? `gap at ${format.tokens(now.tokens)}` : "gap to the baseline"}</span>
      <b>{now ? format.signedPercent(now.fraction) : "–"}</b>
    </p>
  );
}

/** Names of the lines with their values, all read at the same tokens; each button hides its line. */
function Legend(props: { swarm: CurvePoint[]; baseline: CurvePoint[] }): JSX.Element {
  const at = hover.value ?? newestTokens(props.swarm) ?? newestTokens(props.baseline);
  const toggle = (id: SeriesId) => {
    const next = new Set(hidden.value);
    if (!next.delete(id)) next.add(id);
    hidden.value = next;
  };
  return (
    <div class="legend">
      <p class="legend-at">{at === null ? "" : `at ${format.tokens(Math.round(at))}`}</p>
      <ul>
        {SERIES.filter((series) => series.whose === "swarm" || props.baseline.length > 0).map((series) => (
          <li key={series.id}>
            <button type="button" aria-pressed={!hidden.value.has(series.id)} title="show or hide this line" onClick={() => toggle(series.id)}>
              <i class={`line ${series.id}`} aria-hidden="true" />
              <span>{series.name}</span>
              <b>{at === null ? "–" : format.loss(lossAt(series.whose === "swarm" ? props.swarm : props.baseline, series.kind, at))}</b>
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}

function inWords(swarm: CurvePoint[], reference: CurvePoint[]): string {
  if (swarm.length === 0) return "Loss chart. The swarm has no point yet.";
  const last = swarm.at(-1)!;
  const now = gap.value;
  const comparison = now ? ` That is ${gapInWords(now, "the centralised baseline")} at equal tokens.` : reference.length === 0 ? " No baseline is recorded." : "";
  return `Loss chart. After ${format.tokens(last.tokens)} the swarm's held-out loss is ${format.loss(run.value?.heldout_loss)} nats per token.${comparison}`;
}
