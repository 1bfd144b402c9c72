/** Where the peers' time went. */

import type { JSX } from "preact";
import * as format from "../format";
import type { TimeSplit } from "../net/types";
import { Panel } from "../parts";

const PARTS: { key: keyof TimeSplit; name: string; note: string }[] = [
  { key: "compute", name: "Computing", note: "training and applying" },
  { key: "communication", name: "Communicating", note: "waiting for bytes" },
  { key: "idle", name: "Idle", note: "waiting for others or a core" },
];

export function TimePanel(props: { time: TimeSplit }): JSX.Element {
  const { time } = props;
  const known = time.compute + time.communication + time.idle > 0;
  const words = PARTS.map((part) => `${part.name.toLowerCase()} ${format.percent(time[part.key], 0)}`).join(", ");
  return (
    <Panel title="Where the time went">
      <div class="split-bar" role="img" aria-label={known ? words : "no time measured yet"}>
        {PARTS.map((part) => (
          <i key={part.key} class={part.key} style={{ flexGrow: known ? time[part.key] : 0 }} />
        ))}
      </div>
      <ul class="split-words">
        {PARTS.map((part) => (
          <li key={part.key}>
            <i class={part.key} aria-hidden="true" />
            <span>
              {part.name} <small>{part.note}</small>
            </span>
            <b>{known ? format.percent(time[part.key]) : "–"}</b>
          </li>
        ))}
      </ul>
    </Panel>
  );
}
