/** The chart's numbers as a table, for keyboards, screen readers and copying. */

import { useState } from "preact/hooks";
import type { JSX } from "preact";
import { lossAt } from "../curve";
import * as format from "../format";
import type { CurvePoint } from "../net/types";

/** Newest rows first; a long run is thinned to this many. */
const ROWS_MAX = 200;

export function CurveTable(props: { swarm: CurvePoint[]; baseline: CurvePoint[] }): JSX.Element {
  const [open, setOpen] = useState(false);
  return (
    <details class="curve-table" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>The numbers as a table</summary>
      {open && (
        <div class="scroll" tabIndex={0} aria-label="Loss by tokens, newest first">
          <table>
            <thead>
              <tr>
                <th scope="col">Tokens</th>
                <th scope="col">Swarm, training</th>
                <th scope="col">Swarm, held-out</th>
                <th scope="col">Baseline, held-out</th>
                <th scope="col">Gap</th>
              </tr>
            </thead>
            <tbody>
              {rows(props.swarm).map((point) => (
                <Row key={point.tokens} point={point} baseline={props.baseline} />
              ))}
            </tbody>
          </table>
        </div>
      )}
    </details>
  );
}

function Row(props: { point: CurvePoint; baseline: CurvePoint[] }): JSX.Element {
  const { point } = props;
  const reference = lossAt(props.baseline, "heldout_loss", point.tokens);
  const gap = reference !== null && point.heldout_loss !== null ? format.signedPercent(point.heldout_loss / reference - 1) : "–";
  return (
    <tr>
      <th scope="row">{point.tokens.toLocaleString("en")}</th>
      <td>{format.loss(point.training_loss)}</td>
      <td>{format.loss(point.heldout_loss)}</td>
      <td>{format.loss(reference)}</td>
      <td>{gap}</td>
    </tr>
  );
}

function rows(swarm: CurvePoint[]): CurvePoint[] {
  const every = Math.ceil(swarm.length / ROWS_MAX);
  return [...swarm].reverse().filter((_, index) => index % every === 0);
}
