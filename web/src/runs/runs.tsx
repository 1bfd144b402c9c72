/** The runs of the data directory: where each stands, on what it is trained, and which run it came from. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import * as format from "../format";
import { run } from "../net/store";
import type { RunLine, RunState } from "../net/types";
import { HashText, Panel } from "../parts";
import { Link } from "../router";
import { read, type Listed } from "./read";

const STATES: Record<RunState, string> = {
  new: "new",
  paused: "paused",
  running: "running",
  halted: "halted",
  complete: "complete",
};

/** How often the list is read while somebody looks at it. */
const EVERY_MS = 5_000;

export function RunsPage(): JSX.Element {
  const [listed, setListed] = useState<Listed>({ kind: "reading" });
  useEffect(() => {
    let here = true;
    const look = async () => {
      const next = await read();
      // What was read before stays when the node is away for a moment.
      if (here) setListed((before) => (next.kind === "failed" && before.kind === "runs" ? before : next));
    };
    void look();
    const timer = setInterval(() => document.visibilityState === "visible" && void look(), EVERY_MS);
    return () => {
      here = false;
      clearInterval(timer);
    };
  }, []);
  return (
    <div class="page runs-page">
      <h1>Runs</h1>
      <Body listed={listed} />
      <p class="quiet">
        <code>cairn run new</code> describes another one, <code>cairn run fork</code> changes one of these, and <code>cairn up --run NAME</code> goes on with it.
      </p>
    </div>
  );
}

function Body(props: { listed: Listed }): JSX.Element {
  const { listed } = props;
  if (listed.kind === "reading") return <p class="quiet">Reading the data directory.</p>;
  if (listed.kind === "failed") {
    return (
      <p class="message bad" role="alert">
        <strong>The runs cannot be read: {listed.reason}.</strong> {listed.hint}
      </p>
    );
  }
  const runs = withNews(listed.runs);
  return (
    <Panel title="On this machine" class="runs" aside={<span class="count">{runs.length === 1 ? "1 run" : `${runs.length} runs`}</span>}>
      {runs.length === 0 ? <p class="quiet">There is no run yet.</p> : <Table runs={runs} />}
    </Panel>
  );
}

/** The list is read now and then; of the run that this node trains, the page knows more. */
function withNews(runs: RunLine[]): RunLine[] {
  const now = run.value;
  return runs.map((line) => (now !== null && now.id === line.id && line.state === "running" ? { ...line, round: now.round, heldout_loss: now.heldout_loss ?? line.heldout_loss } : line));
}

const COLUMNS = ["Run", "State", "Round", "Parameters", "Held-out loss", "Gap", "Text", "Parent"];

function Table(props: { runs: RunLine[] }): JSX.Element {
  const names = new Map(props.runs.map((line) => [line.id, line.name]));
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Runs of the data directory">
      <table>
        <thead>
          <tr>
            {COLUMNS.map((name) => (
              <th key={name} scope="col">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {props.runs.map((line) => (
            <Row key={line.id} line={line} names={names} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Row(props: { line: RunLine; names: Map<string, string> }): JSX.Element {
  const { line, names } = props;
  const shown = run.value?.id === line.id;
  const share = line.rounds > 0 ? Math.min(1, line.round / line.rounds) : 0;
  return (
    <tr aria-current={shown ? "true" : undefined}>
      <th scope="row">
        {shown ? <Link to="/">{line.name}</Link> : <b>{line.name}</b>}
        {line.newest && (
          <span class="badge" title="`cairn up` goes on with this one">
            newest
          </span>
        )}
        <HashText value={line.id} what={`id of ${line.name}`} />
      </th>
      <td>
        <span class={`run-state ${line.state}`}>{STATES[line.state]}</span>
      </td>
      <td>
        {`${line.round} of ${line.rounds}`}
        <span class="run-bar" aria-hidden="true">
          <i style={{ transform: `scaleX(${share})` }} />
        </span>
      </td>
      <td>{format.count(line.parameters)}</td>
      <td>{format.loss(line.heldout_loss)}</td>
      <td>{line.gap === null ? "–" : format.signedPercent(line.gap)}</td>
      <td class="run-text">
        {line.data ?? "–"}
        {line.licence && <small>{line.licence}</small>}
      </td>
      <td>{line.parent ? (names.get(line.parent) ?? <HashText value={line.parent} what={`parent of ${line.name}`} />) : "–"}</td>
    </tr>
  );
}
