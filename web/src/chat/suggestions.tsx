/** Openings to try: the first lines of nothing in particular. */

import type { JSX } from "preact";
import { busy, send, served } from "./session";

const OPENINGS = [
  "She opened the letter, and",
  "It was a dark evening when the carriage",
  "\u201cMy dear sister,\u201d said he, \u201cyou must not",
  "The ball was to be held at",
  "Her mother had often told her that",
  "After dinner the gentlemen",
];

const QUESTIONS = [
  "How many days are in a week?",
  "Explain in two sentences why the sky is blue.",
  "Write a short poem about a cairn on a hill.",
  "Give me three ideas for a rainy afternoon.",
];

export function Suggestions(): JSX.Element {
  const chat = served.value?.chat ?? false;
  return (
    <section class="suggestions" aria-label={chat ? "Questions to try" : "Openings to try"}>
      <p>{chat ? "Ask it something, for example" : "Give it an opening, for example"}</p>
      <ul>
        {(chat ? QUESTIONS : OPENINGS).map((opening) => (
          <li key={opening}>
            <button type="button" disabled={busy.value} onClick={() => void send(opening)}>
              {opening}
              {chat ? "" : " …"}
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}
