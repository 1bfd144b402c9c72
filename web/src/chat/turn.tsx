/** An opening and its continuation, as one passage; or a question and its answer. */

import type { JSX } from "preact";
import * as format from "../format";
import type { Turn } from "./session";

export function TurnView(props: { turn: Turn; last: boolean }): JSX.Element {
  const { turn } = props;
  const open = turn.status === "waiting" || turn.status === "streaming";
  return (
    <article class={`turn ${turn.status}`} aria-busy={open}>
      {turn.chat && <p class="question">{turn.opening}</p>}
      <p class={turn.chat ? "reply" : "passage"}>
        {!turn.chat && <b class="opening">{turn.opening}</b>}
        <span class="answer" data-answer={turn.status}>
          {turn.chat ? turn.answer : `${joint(turn)}${format.prose(turn.answer)}`}
        </span>
        {open && <i class="caret" aria-hidden="true" />}
      </p>
      {turn.error && (
        <div class="turn-error" role="alert">
          <strong>{sentence(turn.error.message)}</strong>
          {turn.error.hint && <p>Hint: {turn.error.hint}</p>}
        </div>
      )}
      <p class="turn-facts">{facts(turn).join(" · ")}</p>
    </article>
  );
}

/** A space between opening and answer where the model left none. */
function joint(turn: Turn): string {
  const needed = turn.answer !== "" && !/\s$/.test(turn.opening) && /^[\p{L}\p{N}]/u.test(turn.answer);
  return needed ? " " : "";
}

function facts(turn: Turn): string[] {
  const known: string[] = [];
  if (turn.status === "waiting") known.push(turn.chat ? "reading the question …" : "reading the opening …");
  if (turn.author) known.push(turn.author);
  if (turn.checkpoint) known.push(`${turn.checkpoint.round === null ? "" : `round ${turn.checkpoint.round}, `}root ${format.short(turn.checkpoint.root)}`);
  if (turn.tokens > 0) known.push(format.tokens(turn.tokens));
  if (turn.tokens > 1 && turn.seconds > 0) known.push(format.rate((turn.tokens - 1) / turn.seconds));
  if (turn.status === "stopped") known.push("stopped");
  if (turn.status === "done" && turn.cut) known.push("ended at the length limit");
  return known;
}

function sentence(fragment: string): string {
  return fragment.charAt(0).toUpperCase() + fragment.slice(1) + (/[.!?]$/.test(fragment) ? "" : ".");
}
