/** Name, phase, progress and time left; the summary when the run is over. */

import type { JSX } from "preact";
import { gapInWords } from "../curve";
import * as format from "../format";
import { gap } from "../net/store";
import type { FaultView, Phase, RunView } from "../net/types";
import { releaseInWords } from "../release";
import { Link } from "../router";
import { Cairn } from "../stones";

const PHASES: Record<Phase, string> = {
  starting: "starting",
  training: "training",
  finished: "finished",
  halted: "halted",
};

export function Headline(props: { run: RunView; faults: FaultView[] }): JSX.Element {
  const { run } = props;
  const progress = run.phase === "finished" ? 1 : fraction(run.round, run.rounds);
  return (
    <section class={`headline ${run.phase}`} aria-labelledby="run-name">
      <Cairn progress={progress} />
      <div class="headline-text">
        <div class="title-line">
          <h1 id="run-name">{run.name}</h1>
          <span class={`phase ${run.phase}`} role="status">
            {PHASES[run.phase]}
          </span>
        </div>
        <p class="model-line">{run.model}</p>
        <p class="data-line">
          {run.data} <span aria-hidden="true">·</span> {run.recipe}
        </p>
        <p class="data-line">
          {releaseInWords(run)}
          {run.licence && ` Text: ${run.licence}.`}
          {run.parent && ` A fork of ${format.short(run.parent)}.`}
        </p>
        <Progress run={run} progress={progress} />
        <Message run={run} faults={props.faults} />
      </div>
    </section>
  );
}

function Progress(props: { run: RunView; progress: number }): JSX.Element {
  const { run } = props;
  return (
    <div class="progress">
      <div
        class="bar"
        role="progressbar"
        aria-label="Progress of the run"
        aria-valuemin={0}
        aria-valuemax={run.rounds}
        aria-valuenow={run.round}
        aria-valuetext={`round ${run.round} of ${run.rounds}. ${timeLeft(run)}`}
      >
        <i style={{ transform: `scaleX(${props.progress})` }} />
      </div>
      <p class="progress-words">
        <span>
          round <b>{run.round}</b> of {run.rounds}
        </span>
        <span>
          {format.count(run.tokens)} of {format.tokens(run.tokens_target)}
        </span>
        <span class="left">{timeLeft(run)}</span>
      </p>
    </div>
  );
}

function timeLeft(run: RunView): string {
  // The time counts from the start of this process: a resumed run took longer.
  if (run.phase === "finished" || run.phase === "halted") return run.elapsed_seconds < 1 ? "" : `ran ${format.duration(run.elapsed_seconds)}`;
  if (run.eta_seconds === null) return "time left: known after the first rounds";
  return `about ${format.duration(run.eta_seconds)} left`;
}

/** One sentence for the phases in which the bar alone would not tell what is going on. */
function Message(props: { run: RunView; faults: FaultView[] }): JSX.Element | null {
  const { run } = props;
  if (run.phase === "starting") return <p class="message">The peers are finding each other and joining. Training begins when enough of them are members.</p>;
  if (run.phase === "finished") return <Summary run={run} />;
  if (run.phase !== "halted") return null;
  const last = props.faults.at(-1);
  return (
    <p class="message bad" role="alert">
      <strong>The run stopped on a fatal fault{last ? ` in round ${last.round}: ${last.what}.` : "."}</strong> Every committed round and receipt is kept on disk. The terminal
      says more; <code>cairn up</code> starts again from the last committed round.
    </p>
  );
}

function Summary(props: { run: RunView }): JSX.Element {
  const { run } = props;
  const now = gap.value;
  return (
    <p class="message good">
      <strong>All {run.rounds} rounds are done.</strong> Held-out loss {format.loss(run.heldout_loss)}
      {now ? `, ${gapInWords(now, "the centralised baseline")} at equal tokens` : ""}, payloads {format.times(run.compression)} smaller than the
      parameters. <Link to="/chat">Talk to the model</Link>.
    </p>
  );
}

function fraction(part: number, whole: number): number {
  return whole > 0 ? Math.min(1, part / whole) : 0;
}
