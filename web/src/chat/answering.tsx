/** Who answers, what it can do, and who can read the text. */

import type { JSX } from "preact";
import { useSignalEffect } from "@preact/signals";
import { connection, run } from "../net/store";
import type { ModelInfo } from "./api";
import { refreshServed, served } from "./session";
import { HashText } from "../parts";
import { Logo } from "../stones";

export function Answering(): JSX.Element {
  const known = run.value;
  useSignalEffect(() => {
    // Each new state, and each new connection, may have brought a newer checkpoint.
    void [run.value?.state_root, connection.value.kind];
    void refreshServed().catch(() => {});
  });
  return (
    <section class="answering" aria-label="Who answers">
      <Logo />
      <div>
        <p class="who">
          <Who model={served.value} />
        </p>
        <p class="what">
          {known ? `A base model, trained on ${known.data}: it` : "A base model: it"} continues your text in the manner of what it read. It follows no instructions and knows no facts.
        </p>
        <p class="reader">
          <Lock />
          <span>{reader()}</span>
        </p>
      </div>
    </section>
  );
}

function Who(props: { model: ModelInfo | null | undefined }): JSX.Element {
  const { model } = props;
  if (model === undefined) return <strong>Asking the node which checkpoint answers …</strong>;
  if (model === null) return <strong>No checkpoint is committed yet: the first round commits one</strong>;
  const which = run.value?.phase === "training" ? "the newest committed checkpoint; training goes on" : run.value?.phase === "finished" ? "the final checkpoint" : "a saved checkpoint";
  return (
    <>
      <strong>{model.round === undefined ? model.id : `Round ${model.round} answers`}</strong> <HashText value={model.state_root} what="model state root" />{" "}
      <small>{model.round === 0 ? "the untrained model: expect noise" : which}</small>
    </>
  );
}

/** The page can tell only where it was loaded from, and that decides who can read. */
function reader(): string {
  if (["127.0.0.1", "localhost", "[::1]"].includes(location.hostname)) {
    return "Who can read this: only this machine (LOCAL).";
  }
  const way = location.protocol === "https:" ? "" : ", and the network in between: the connection is not encrypted";
  return `Who can read this: this device and ${location.hostname}, which runs the model${way}.`;
}

function Lock(): JSX.Element {
  return (
    <svg viewBox="0 0 24 24" aria-hidden="true">
      <path d="M6 11h12v9H6zM8.500 11V8a3.500 3.500 0 0 1 7 0v3" />
    </svg>
  );
}
