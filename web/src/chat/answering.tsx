/** Who answers, what it can do, and who can read the text. */

import type { JSX } from "preact";
import { useSignalEffect } from "@preact/signals";
import { connection, run } from "../net/store";
import type { ModelInfo } from "./api";
import { busy, choose, models, refreshServed, served } from "./session";
import * as format from "../format";
import { HashText } from "../parts";
import { Logo } from "../stones";

export function Answering(): JSX.Element {
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
        <p class="what">{manner(served.value)}</p>
        {served.value?.stages ? (
          <p class="reader open">
            <Eye />
            <span>{`Not private: the model is spread over ${served.value.stages} stages, and every peer that serves one can read along.`}</span>
          </p>
        ) : (
          <p class="reader">
            <Lock />
            <span>{reader()}</span>
          </p>
        )}
      </div>
      <Picker />
    </section>
  );
}

function Who(props: { model: ModelInfo | null | undefined }): JSX.Element {
  const { model } = props;
  if (model === undefined) return <strong>Asking the node which checkpoint answers …</strong>;
  if (model === null) return <strong>{run.value ? "No checkpoint is committed yet: the first round commits one" : "There is no model here yet: `cairn models import` brings one"}</strong>;
  if (model.imported) {
    return (
      <>
        <strong>{model.id} answers</strong> <HashText value={model.state_root} what="model hash" />
        <small class="facts">{facts(model)}</small>
      </>
    );
  }
  const which = run.value?.phase === "training" ? "the newest committed checkpoint; training goes on" : run.value?.phase === "finished" ? "the final checkpoint" : "a saved checkpoint";
  return (
    <>
      <strong>{model.round === undefined ? model.id : `Round ${model.round} answers`}</strong> <HashText value={model.state_root} what="model state root" />{" "}
      <small>{model.round === 0 ? "the untrained model: expect noise" : which}</small>
    </>
  );
}

/** Which model answers, when there is a choice. */
function Picker(): JSX.Element | null {
  const known = models.value ?? [];
  if (known.length < 2) return null;
  return (
    <label class="picker">
      <span>Model</span>
      <select value={served.value?.id} disabled={busy.value} onChange={(event) => choose(event.currentTarget.value)}>
        {known.map((model) => (
          <option key={model.id} value={model.id}>
            {model.imported ? model.id : `${model.id} (trained here)`}
          </option>
        ))}
      </select>
    </label>
  );
}

function facts(model: ModelInfo): string {
  const known: string[] = [];
  if (model.parameters) known.push(`${format.count(model.parameters)} parameters`);
  if (model.context) known.push(`reads ${model.context.toLocaleString("en")} tokens`);
  known.push(model.licence ? `licence ${model.licence}` : "no licence stated");
  return known.join(" · ");
}

/** What can be expected of a model. */
function manner(model: ModelInfo | null | undefined): string {
  if (model?.chat) return "An imported model, tuned to answer. It remembers this conversation, and may be wrong.";
  const known = run.value;
  const what = model?.imported ? "An imported base model: it" : known ? `A base model, trained on ${known.data}: it` : "A base model: it";
  return `${what} continues your text in the manner of what it read. It follows no instructions and knows no facts.`;
}

/** The page can tell only where it was loaded from, and that decides who can read. */
function reader(): string {
  if (["127.0.0.1", "localhost", "[::1]"].includes(location.hostname)) {
    return "Who can read this: only this machine (LOCAL).";
  }
  const way = location.protocol === "https:" ? "" : ", and the network in between: the connection is not encrypted";
  return `Who can read this: this device and ${location.hostname}, which runs the model${way}.`;
}

function Eye(): JSX.Element {
  return (
    <svg viewBox="0 0 24 24" aria-hidden="true">
      <path d="M2.500 12c2.500-4.500 5.700-6.500 9.500-6.500s7 2 9.500 6.500c-2.500 4.500-5.700 6.500-9.500 6.500s-7-2-9.500-6.500zM12 9a3 3 0 1 1 0 6 3 3 0 0 1 0-6" />
    </svg>
  );
}

function Lock(): JSX.Element {
  return (
    <svg viewBox="0 0 24 24" aria-hidden="true">
      <path d="M6 11h12v9H6zM8.500 11V8a3.500 3.500 0 0 1 7 0v3" />
    </svg>
  );
}
