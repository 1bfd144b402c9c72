/** The Run page: a run at one look, kept up to date. */

import type { JSX } from "preact";
import { connection, state } from "../net/store";
import type { NetState, RunView } from "../net/types";
import { Link } from "../router";
import { Cairn } from "../stones";
import { ChartPanel } from "./chart";
import { Faults } from "./faults";
import { Figures } from "./figures";
import { Headline } from "./headline";
import { JoinPanel } from "./join";
import { LedgerPanel } from "./ledger";
import { Peers } from "./peers";
import { SamplePanel } from "./sample";
import { Stages } from "./stages";
import { TimePanel } from "./time";

export function RunPage(): JSX.Element {
  const known = state.value;
  if (known === null) return <Unknown />;
  if (known.run === null) return <NoRun />;
  return <Running state={known} run={known.run} />;
}

function Running(props: { state: NetState; run: RunView }): JSX.Element {
  const { peers, ledger, faults } = props.state;
  return (
    <div class="run-page">
      <Headline run={props.run} faults={faults} />
      <Figures run={props.run} />
      <ChartPanel />
      <SamplePanel />
      <Faults faults={faults} peers={peers} />
      {props.run.pipeline && <Stages pipeline={props.run.pipeline} peers={peers} />}
      <Peers peers={peers} />
      {props.run.ticket && <JoinPanel ticket={props.run.ticket} />}
      <div class="side">
        <TimePanel time={props.run.time} />
        <LedgerPanel ledger={ledger} stateRoot={props.run.state_root} />
      </div>
    </div>
  );
}

/** Before the first answer of the node. */
function Unknown(): JSX.Element {
  const waiting = connection.value.kind === "connecting";
  return (
    <section class="empty" aria-busy={waiting}>
      <Cairn progress={0} />
      <h1>{waiting ? "Asking the node …" : "Waiting for the node"}</h1>
      <p>
        {waiting ? (
          "The figures of the run appear here in a moment."
        ) : (
          <>
            Start it with <code>cairn up</code> in a terminal. This page connects by itself as soon as it answers.
          </>
        )}
      </p>
    </section>
  );
}

/** A process that serves a model without training. */
function NoRun(): JSX.Element {
  return (
    <section class="empty">
      <Cairn progress={1} />
      <h1>No run in this process</h1>
      <p>
        It serves a finished model and trains nothing. <Link to="/chat">Talk to the model</Link>, or start a swarm with <code>cairn up</code>.
      </p>
    </section>
  );
}
