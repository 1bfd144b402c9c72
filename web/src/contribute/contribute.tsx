/** The Contribute page: what this machine does for the run, what it gives, and how to let it rest. */

import { useState } from "preact/hooks";
import type { JSX } from "preact";
import * as format from "../format";
import { control, state } from "../net/store";
import type { MachineView, NetState, PeerView, PipelineView } from "../net/types";
import { Panel, useCopy } from "../parts";
import { Link } from "../router";
import { Cairn, Pebble } from "../stones";
import { type Gauge, gauges, here, pauseNote, pauseText, role, schedule } from "./words";

export function ContributePage(): JSX.Element {
  const known = state.value;
  if (known === null) return <Empty title="Asking the node …" />;
  if (!known.machine || known.run === null) return <Empty title="No peer in this process" />;
  return <Machine state={known} machine={known.machine} />;
}

function Empty(props: { title: string }): JSX.Element {
  return (
    <section class="empty">
      <Cairn progress={0} />
      <h1>{props.title}</h1>
      <p>
        <code>cairn up</code> founds a run on this machine, and <code>cairn join</code> takes part in one with a ticket. <Link to="/">The run</Link> is on its own page.
      </p>
    </section>
  );
}

function Machine(props: { state: NetState; machine: MachineView }): JSX.Element {
  const { machine } = props;
  const peers = here(props.state.peers);
  return (
    <div class="contribute-page">
      <Now machine={machine} peers={peers} />
      <MyPeers peers={peers} pipeline={props.state.run?.pipeline} />
      <Limits machine={machine} peers={peers.length} />
      <Doctor machine={machine} peers={peers} />
      <Commands machine={machine} />
    </div>
  );
}

/** One line on what it does, and the button. */
function Now(props: { machine: MachineView; peers: PeerView[] }): JSX.Element {
  const { paused } = props.machine;
  const [asking, setAsking] = useState(false);
  const [refused, setRefused] = useState<string | null>(null);
  const ask = async () => {
    setAsking(true);
    setRefused(await control(paused?.why === "person" ? "resume" : "pause"));
    setAsking(false);
  };
  const working = props.peers.filter((peer) => peer.activity === "training" || peer.activity === "applying").length;
  const words = paused !== null ? pauseText(paused) : working > 0 ? "Working" : "Ready";
  return (
    <section class="now" aria-label="This machine">
      <div>
        <div class="title-line">
          <h1>This machine</h1>
          <span class={`phase ${paused === null ? "" : "starting"}`} role="status">
            {words}
          </span>
        </div>
        <p class="quiet">{pauseNote(paused)}</p>
        {refused !== null && <p class="message bad">{refused}</p>}
      </div>
      <button type="button" class="pause" disabled={asking} onClick={() => void ask()}>
        {paused?.why === "person" ? "Resume" : "Pause"}
      </button>
    </section>
  );
}

function MyPeers(props: { peers: PeerView[]; pipeline: PipelineView | null | undefined }): JSX.Element {
  return (
    <Panel title={props.peers.length === 1 ? "My peer" : "My peers"} class="mine">
      <ul>
        {props.peers.map((peer) => (
          <li key={peer.id}>
            <Pebble id={peer.id} />
            <span>
              <b>{peer.name}</b>
              <small>{role(peer, props.pipeline)}</small>
            </span>
            <span class={`doing ${peer.activity}`}>
              <i aria-hidden="true" />
              {peer.activity}
            </span>
            <small>{`${peer.receipts.toLocaleString("en")} receipts · ${format.shares(peer.shares)} shares`}</small>
          </li>
        ))}
      </ul>
    </Panel>
  );
}

function Limits(props: { machine: MachineView; peers: number }): JSX.Element {
  return (
    <Panel title="Limits" class="limits" aside={<span class="count">means over ten seconds</span>}>
      <ul>
        {gauges(props.machine, props.peers).map((gauge) => (
          <Row key={gauge.name} gauge={gauge} />
        ))}
      </ul>
      <p class="quiet">{schedule(props.machine)}</p>
    </Panel>
  );
}

function Row(props: { gauge: Gauge }): JSX.Element {
  const { name, used, limit, part } = props.gauge;
  return (
    <li>
      <span>{name}</span>
      <b>{used}</b>
      <small>{limit === null ? "no limit" : `of ${limit}`}</small>
      {part !== null && (
        <span class="share-bar" aria-hidden="true">
          <i class={part > 1.15 ? "over" : ""} style={{ transform: `scaleX(${Math.min(part, 1)})` }} />
        </span>
      )}
    </li>
  );
}

/** What the machine has, as `cairn doctor` says it. */
function Doctor(props: { machine: MachineView; peers: PeerView[] }): JSX.Element {
  const { machine } = props;
  const speed = props.peers.reduce((sum, peer) => sum + peer.tokens_per_second, 0);
  const size = (value: number | null) => (value === null ? "unknown" : format.bytes(value));
  const pairs: [string, string][] = [
    ["Cores", `${machine.cores}, ${machine.isa}`],
    ["Memory", `${size(machine.memory_free_bytes)} free of ${size(machine.memory_bytes)}`],
    ["Disk", `${size(machine.disk_free_bytes)} free`],
    ["Training speed", speed > 0 ? `${format.rate(speed)}${props.peers.length > 1 ? ", all peers" : ""}` : "not measured yet"],
  ];
  return (
    <Panel title="What it has" class="doctor">
      <dl class="pairs">
        {pairs.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </Panel>
  );
}

/** How to change what it gives. */
function Commands(props: { machine: MachineView }): JSX.Element {
  const options = [...gauges(props.machine).map((gauge) => gauge.option), "--when idle", "--when 22:00-07:00"];
  return (
    <Panel title="Change the limits" class="commands">
      <p class="quiet">
        Limits are set when cairn starts. Stop it, add options to the command that started it, and start it again: it goes on where it was. None of them changes a result.
      </p>
      <ul>
        {["cairn stop", "cairn pause", "cairn resume", ...options].map((command) => (
          <Command key={command} text={command} />
        ))}
      </ul>
    </Panel>
  );
}

function Command(props: { text: string }): JSX.Element {
  const [copied, copy] = useCopy(props.text);
  return (
    <li>
      <button type="button" class="copy" aria-label={`copy ${props.text}`} onClick={copy}>
        <code>{props.text}</code>
        <small>{copied ? "copied" : "copy"}</small>
      </button>
    </li>
  );
}
