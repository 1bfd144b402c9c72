/** Whether the figures are live, said in words. */

import { useEffect, useState } from "preact/hooks";
import type { JSX } from "preact";
import { connection, retryNow, run, state } from "./net/store";

/** The small word in the bar: `live`, `connecting`, `offline`. */
export function ConnectionState(): JSX.Element {
  const kind = connection.value.kind;
  const word = kind === "lost" ? "offline" : kind === "connecting" ? "connecting" : run.value?.phase === "training" ? "live" : "connected";
  return (
    <span class={`connection ${kind}`} role="status">
      <i aria-hidden="true" />
      <span>{word}</span>
    </span>
  );
}

/** A line under the bar while the connection is lost. */
export function ConnectionNotice(): JSX.Element | null {
  const now = connection.value;
  if (now.kind !== "lost") return null;
  const known = state.value !== null;
  return (
    <div class="notice warn" role="alert">
      <p>
        <strong>{known ? "Connection lost, retrying." : "The node does not answer yet, retrying."}</strong>{" "}
        {known ? "The page shows what arrived last." : "Is `cairn up` still running in its terminal?"}
      </p>
      <Countdown until={now.retryAt} />
      <button type="button" onClick={retryNow}>
        Retry now
      </button>
    </div>
  );
}

function Countdown(props: { until: number }): JSX.Element {
  const [now, setNow] = useState(performance.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(performance.now()), 500);
    return () => clearInterval(timer);
  }, []);
  const seconds = Math.max(0, Math.ceil((props.until - now) / 1000));
  return (
    <span class="countdown" aria-hidden="true">
      {seconds > 0 ? `again in ${seconds} s` : "trying …"}
    </span>
  );
}
