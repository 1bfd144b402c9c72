/** The head of the ledger. */

import type { JSX } from "preact";
import * as format from "../format";
import type { LedgerView } from "../net/types";
import { HashText, Panel } from "../parts";

export function LedgerPanel(props: { ledger: LedgerView | null; stateRoot: string | null }): JSX.Element {
  const { ledger } = props;
  return (
    <Panel title="Ledger">
      <dl class="pairs">
        <Pair name="Blocks">{ledger ? ledger.height.toLocaleString("en") : "–"}</Pair>
        <Pair name="Receipts paid">{ledger ? ledger.receipts.toLocaleString("en") : "–"}</Pair>
        <Pair name="Shares issued">{ledger ? format.shares(ledger.supply) : "–"}</Pair>
        <Pair name="Ledger root">
          <HashText value={ledger?.root} what="ledger root" />
        </Pair>
        <Pair name="Model state root">
          <HashText value={props.stateRoot} what="model state root" />
        </Pair>
      </dl>
    </Panel>
  );
}

function Pair(props: { name: string; children: JSX.Element | string }): JSX.Element {
  return (
    <div>
      <dt>{props.name}</dt>
      <dd>{props.children}</dd>
    </div>
  );
}
