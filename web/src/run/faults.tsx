/** Recorded faults, newest first; nothing at all while there are none. */

import type { JSX } from "preact";
import type { FaultView, PeerView } from "../net/types";
import * as format from "../format";
import { Panel } from "../parts";

export function Faults(props: { faults: FaultView[]; peers: PeerView[] }): JSX.Element | null {
  if (props.faults.length === 0) return null;
  const name = (id: string) => props.peers.find((peer) => peer.id === id)?.name ?? format.short(id);
  const newestFirst = [...props.faults].reverse();
  return (
    <Panel title="Faults" class="faults" aside={<span class="count">{props.faults.length}</span>}>
      <ol tabIndex={0} aria-label="Faults, newest first">
        {newestFirst.map((fault, index) => (
          <li key={`${props.faults.length - index}`}>
            <span class="where">
              <b>{name(fault.peer)}</b> round {fault.round}
            </span>
            <span>{fault.what}</span>
          </li>
        ))}
      </ol>
    </Panel>
  );
}
