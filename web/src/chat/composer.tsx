/** Where text is typed, with temperature and length. */

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { JSX } from "preact";
import { busy, send, served, settings, stop, type Settings } from "./session";

/** Kept while the person looks at another page. */
const draft = signal("");

export function Composer(props: { onSend: () => void }): JSX.Element {
  const field = useRef<HTMLTextAreaElement>(null);

  useEffect(() => {
    // On a phone the keyboard would cover the page before anybody asked for it.
    if (matchMedia("(hover: hover)").matches) field.current?.focus({ preventScroll: true });
  }, []);

  useEffect(() => {
    const element = field.current!;
    element.style.height = "auto";
    element.style.height = `${element.scrollHeight}px`;
  }, [draft.value]);

  const submit = () => {
    const opening = draft.value;
    if (busy.value || opening.trim() === "") return;
    draft.value = "";
    props.onSend();
    void send(opening);
  };
  const onKey = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <div class="field">
        <label class="visually-hidden" for="opening">
          {served.value?.chat ? "Message to the model" : "Opening for the model to continue"}
        </label>
        <textarea
          id="opening"
          ref={field}
          rows={1}
          placeholder={served.value?.chat ? "Ask something …" : "Begin a sentence …"}
          aria-describedby="keys"
          value={draft.value}
          onInput={(event) => (draft.value = event.currentTarget.value)}
          onKeyDown={onKey}
        />
        {busy.value ? (
          <button type="button" class="send stop" onClick={stop}>
            Stop
          </button>
        ) : (
          <button type="submit" class="send" disabled={draft.value.trim() === ""}>
            Send
          </button>
        )}
      </div>
      <div class="controls">
        <Slider name="Temperature" id="temperature" low={0} high={1.5} step={0.1} value={settings.value.temperature} shown={settings.value.temperature.toFixed(1)} set={(temperature) => change({ temperature })} />
        <Slider name="Length" id="length" low={16} high={400} step={8} value={settings.value.length} shown={`${settings.value.length} tokens`} set={(length) => change({ length })} />
      </div>
    </form>
  );
}

function change(part: Partial<Settings>): void {
  settings.value = { ...settings.value, ...part };
}

interface SliderProps {
  name: string;
  id: string;
  low: number;
  high: number;
  step: number;
  value: number;
  shown: string;
  set: (value: number) => void;
}

function Slider(props: SliderProps): JSX.Element {
  return (
    <label class="slider" for={props.id}>
      <span>{props.name}</span>
      <input
        id={props.id}
        type="range"
        min={props.low}
        max={props.high}
        step={props.step}
        value={props.value}
        aria-valuetext={props.shown}
        onInput={(event) => props.set(Number(event.currentTarget.value))}
      />
      <output for={props.id}>{props.shown}</output>
    </label>
  );
}
