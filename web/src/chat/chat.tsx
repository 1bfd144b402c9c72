/** The Chat page: an opening goes in, the newest committed checkpoint continues it; or an imported model answers. */

import { useSignalEffect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { JSX } from "preact";
import { Composer } from "./composer";
import { Answering } from "./answering";
import { Announcer } from "./announcer";
import { busy, clear, regenerate, stop, turns } from "./session";
import { Suggestions } from "./suggestions";
import { TurnView } from "./turn";

/** Nearer to the end than this, the page follows the text as it grows. */
const FOLLOW_PX = 160;

export function ChatPage(): JSX.Element {
  const following = useRef(true);

  useEffect(() => {
    const onScroll = () => {
      following.current = document.documentElement.scrollHeight - innerHeight - scrollY < FOLLOW_PX;
    };
    const onKey = (event: KeyboardEvent) => {
      if (event.key === "Escape" && busy.value) stop();
    };
    addEventListener("scroll", onScroll, { passive: true });
    addEventListener("keydown", onKey);
    return () => {
      removeEventListener("scroll", onScroll);
      removeEventListener("keydown", onKey);
    };
  }, []);

  useSignalEffect(() => {
    if (turns.value.length === 0 || !following.current) return;
    requestAnimationFrame(() => scrollTo({ top: document.documentElement.scrollHeight }));
  });

  const known = turns.value;
  return (
    <div class="chat-page">
      <h1 class="visually-hidden">Chat</h1>
      <Answering />
      <div class="turns" role="log" aria-live="off" aria-busy={busy.value} aria-label="Conversation">
        {known.map((turn, index) => (
          <TurnView key={turn.id} turn={turn} last={index === known.length - 1} />
        ))}
      </div>
      {known.length === 0 && <Suggestions />}
      <Announcer />
      <div class="dock">
        <div class="dock-actions">
          <p id="keys" class="keys">
            <kbd>Enter</kbd> sends, <kbd>Shift</kbd>+<kbd>Enter</kbd> starts a line, <kbd>Esc</kbd> stops
          </p>
          <button type="button" class="quiet-button" hidden={known.length === 0} disabled={busy.value} onClick={() => void regenerate()}>
            Regenerate
          </button>
          <button type="button" class="quiet-button" hidden={known.length === 0} onClick={clear}>
            Clear
          </button>
        </div>
        <Composer onSend={() => (following.current = true)} />
      </div>
    </div>
  );
}
