/** Reads an answer aloud by whole sentences: word by word, a screen reader would never catch up. */

import { useSignalEffect } from "@preact/signals";
import { useRef, useState } from "preact/hooks";
import type { JSX } from "preact";
import { turns } from "./session";

export function Announcer(): JSX.Element {
  const [said, setSaid] = useState("");
  const place = useRef({ id: 0, until: 0 });
  useSignalEffect(() => {
    const turn = turns.value.at(-1);
    if (turn === undefined) return;
    if (turn.id !== place.current.id) place.current = { id: turn.id, until: 0 };
    const fresh = turn.answer.slice(place.current.until);
    const over = turn.status !== "waiting" && turn.status !== "streaming";
    const whole = over ? fresh.length : Math.max(...[...".!?;\n"].map((mark) => fresh.lastIndexOf(mark))) + 1;
    if (whole === 0) return;
    place.current.until += whole;
    setSaid(fresh.slice(0, whole));
  });
  return (
    <p class="visually-hidden" aria-live="polite">
      {said}
    </p>
  );
}
