/** Openings to try: the first lines of nothing in particular. */

import type { JSX } from "preact";
import { busy, send } from "./session";

const OPENINGS = [
  "She opened the letter, and",
  "It was a dark evening when the carriage",
  "\u201cMy dear sister,\u201d said he, \u201cyou must not",
  "The ball was to be held at",
  "Her mother had often told her that",
  "After dinner the gentlemen",
];

export function Suggestions(): JSX.Element {
  return (
    <section class="suggestions" aria-label="Openings to try">
      <p>Give it an opening, for example</p>
      <ul>
        {OPENINGS.map((opening) => (
          <li key={opening}>
            <button type="button" disabled={busy.value} onClick={() => void send(opening)}>
              {opening} …
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}
