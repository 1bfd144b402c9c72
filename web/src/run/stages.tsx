/** Which peers hold which part of the model, and what travels between the parts. */

import type { JSX } from "preact";
import * as format from "../format";
import type { PeerView, PipelineView } from "../net/types";
import { Panel } from "../parts";
import { Pebble } from "../stones";
import { isHere } from "./peers";

export function Stages(props: { pipeline: PipelineView; peers: PeerView[] }): JSX.Element {
  const { pipeline, peers } = props;
  const last = pipeline.layers.length - 1;
  return (
    <Panel title="Stages" class="stages" aside={<span class="count">{`${pipeline.layers.length} parts · no peer holds all`}</span>}>
      <ol class="pipeline">
        {pipeline.layers.map(([first, count], stage) => (
          <li key={stage}>
            <Stage stage={stage} first={first} count={count} ends={[stage === 0, stage === last]} peers={peers.filter((peer) => peer.stage === stage)} />
            {pipeline.boundaries[stage] && <Boundary {...pipeline.boundaries[stage]} />}
          </li>
        ))}
      </ol>
      <p class="quiet">
        {`Codec ${pipeline.codec}. `}
        {where(pipeline.link, props.peers)}
      </p>
    </Panel>
  );
}

/** One sentence on what is between the peers. */
function where(link: string | null, peers: PeerView[]): string {
  if (peers.some((peer) => peer.activity === "elsewhere")) return "Some of the peers are on other machines.";
  return link === null ? "The peers are on one machine." : `Every peer is behind a link of ${link}.`;
}

function Stage(props: { stage: number; first: number; count: number; ends: [boolean, boolean]; peers: PeerView[] }): JSX.Element {
  const { stage, first, count, ends, peers } = props;
  const online = peers.filter(isHere);
  const lost = peers.length - online.length;
  const receipts = peers.reduce((sum, peer) => sum + peer.receipts, 0);
  const layers = count === 1 ? `layer ${first + 1}` : `layers ${first + 1}–${first + count}`;
  const parts = [ends[0] ? "embedding" : null, layers, ends[1] ? "head" : null].filter((part) => part !== null);
  return (
    <div class="stage">
      <p>
        <b>{`Stage ${stage + 1}`}</b>
        <small>{parts.join(", ")}</small>
      </p>
      <ul>
        {peers.map((peer) => (
          <li key={peer.id} class={isHere(peer) ? "" : "away"} title={`${peer.name}: ${peer.activity}`}>
            <Pebble id={peer.id} />
            <span>{peer.name}</span>
            <small>{receipts > 0 ? format.percent(peer.receipts / receipts) : "–"}</small>
          </li>
        ))}
      </ul>
      {lost > 0 && <p class={online.length > 0 ? "healed" : "broken"}>{online.length > 0 ? `${lost} away, the others go on` : "nobody is left: the run waits"}</p>}
    </div>
  );
}

/** What a token costs on its way to the next stage and back. */
function Boundary(props: { precision: string; bytes_per_token: number }): JSX.Element {
  const each = format.bytes(props.bytes_per_token);
  return (
    <div class="boundary" title={`${each} a token forward, and as many back, each number in ${props.precision}`}>
      <i aria-hidden="true" />
      <small>{`${props.precision} · ${each} a token, each way`}</small>
    </div>
  );
}
