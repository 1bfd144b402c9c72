/** The key figures in one row. */

import type { JSX } from "preact";
import * as format from "../format";
import type { RunView } from "../net/types";

export function Figures(props: { run: RunView }): JSX.Element {
  const { run } = props;
  const measured = run.tokens > 0;
  return (
    <dl class="figures" aria-label="Key figures">
      <Figure name="Held-out loss" value={format.loss(run.heldout_loss)} note={run.training_loss === null ? "nats per token" : `training ${format.loss(run.training_loss)} nats per token`} />
      <Figure name="Speed" value={run.tokens_per_second > 0 ? format.rate(run.tokens_per_second) : "–"} note="all peers together" />
      <Figure
        name="Sent per trained token"
        value={measured ? format.bytes(run.bytes_per_token) : "–"}
        note={measured ? `payload alone ${format.bytes(run.payload_bytes_per_token)}` : "headers included"}
      />
      <Figure name="Payload compression" value={format.times(run.compression)} note="smaller than f32 parameters" />
      <Figure name="Parameters" value={format.count(run.parameters)} note={run.pipeline ? `in ${run.pipeline.layers.length} stages` : "trained by every peer"} />
    </dl>
  );
}

function Figure(props: { name: string; value: string; note: string }): JSX.Element {
  return (
    <div>
      <dt>{props.name}</dt>
      <dd>
        <strong>{props.value}</strong>
        <small>{props.note}</small>
      </dd>
    </div>
  );
}
