/** One row per peer; on a narrow screen, one card per peer. */

import type { ComponentChildren, JSX } from "preact";
import * as format from "../format";
import type { PeerActivity, PeerView } from "../net/types";
import { HashText, Panel } from "../parts";
import { Pebble } from "../stones";

const ACTIVITIES: Record<PeerActivity, string> = {
  offline: "offline",
  joining: "joining",
  training: "training",
  fetching: "fetching",
  applying: "applying",
  waiting: "waiting",
  done: "done",
  paused: "paused",
  restarting: "restarting",
  elsewhere: "elsewhere",
};

/** Whether a peer is there: it is not while its process is started again. */
export function isHere(peer: PeerView): boolean {
  return peer.activity !== "offline" && peer.activity !== "restarting";
}

const COLUMNS = ["Peer", "Doing", "Share", "Receipts", "Speed", "Sent", "Received", "Faults"];

export function Peers(props: { peers: PeerView[] }): JSX.Element {
  const online = props.peers.filter(isHere).length;
  return (
    <Panel title="Peers" class="peers" aside={<span class="count">{`${online} of ${props.peers.length} online`}</span>}>
      {props.peers.length === 0 ? <p class="quiet">No peer has been seen yet.</p> : <Table peers={props.peers} />}
    </Panel>
  );
}

function Table(props: { peers: PeerView[] }): JSX.Element {
  return (
    <table role="table">
      <thead role="rowgroup">
        <tr role="row">
          {COLUMNS.map((name) => (
            <th key={name} role="columnheader" scope="col">
              {name}
            </th>
          ))}
        </tr>
      </thead>
      <tbody role="rowgroup">
        {[...props.peers].sort(byName).map((peer) => (
          <Row key={peer.id} peer={peer} />
        ))}
      </tbody>
    </table>
  );
}

/** `peer 2` before `peer 10`. */
function byName(a: PeerView, b: PeerView): number {
  return a.name.localeCompare(b.name, "en", { numeric: true });
}

function Row(props: { peer: PeerView }): JSX.Element {
  const { peer } = props;
  return (
    <tr role="row">
      <th role="rowheader" scope="row">
        <span class="peer-name">
          <Pebble id={peer.id} />
          <span>
            <b>{peer.name}</b>
            {peer.validator && (
              <span class="badge" title="orders the blocks of the ledger">
                validator
              </span>
            )}
            <HashText value={peer.id} what={`id of ${peer.name}`} />
          </span>
        </span>
      </th>
      <Cell name="Doing">
        <span class={`doing ${peer.activity}`}>
          <i aria-hidden="true" />
          {ACTIVITIES[peer.activity]}
        </span>
        {!isLocal(peer) && peer.path && <small class="path">{reached(peer.path)}</small>}
        {peer.lost ? <small class="lives bad">{peer.lost}</small> : restarts(peer) > 0 && <small class="lives">{`restarted ${restarts(peer)}×`}</small>}
      </Cell>
      <Cell name="Share">
        <span class="share">
          <span class="share-bar" aria-hidden="true">
            <i style={{ transform: `scaleX(${peer.share_of_supply})` }} />
          </span>
          <b>{format.percent(peer.share_of_supply)}</b>
          <small>{format.shares(peer.shares)}</small>
        </span>
      </Cell>
      <Cell name="Receipts">{peer.receipts.toLocaleString("en")}</Cell>
      <Cell name="Speed">{peer.tokens_per_second > 0 ? format.rate(peer.tokens_per_second) : "–"}</Cell>
      <Cell name="Sent">{isLocal(peer) ? format.bytes(peer.bytes_sent) : "–"}</Cell>
      <Cell name="Received">{isLocal(peer) ? format.bytes(peer.bytes_received) : "–"}</Cell>
      <Cell name="Faults">{peer.faults > 0 ? <b class="bad">{peer.faults}</b> : "0"}</Cell>
    </tr>
  );
}

/** Whether it runs on this machine; of others only the ledger is known. */
function isLocal(peer: PeerView): boolean {
  return peer.name.startsWith("peer ");
}

/** How a peer of another machine is reached. */
function reached(path: NonNullable<PeerView["path"]>): string {
  return `${path.relayed ? "through a relay" : "directly"}, ${Math.max(1, Math.round(path.round_trip_ms))} ms`;
}

function restarts(peer: PeerView): number {
  return peer.restarts ?? 0;
}

function Cell(props: { name: string; children: ComponentChildren }): JSX.Element {
  return (
    <td role="cell" data-name={props.name}>
      {props.children}
    </td>
  );
}
