/** What the model writes, now and earlier. */

import { computed, signal } from "@preact/signals";
import type { JSX } from "preact";
import * as format from "../format";
import { samples } from "../net/store";
import { Panel } from "../parts";

/** The round whose sample is shown; null follows the newest. */
const picked = signal<number | null>(null);

const shown = computed(() => {
  const last = samples.value.length - 1;
  if (picked.value === null) return last;
  const found = samples.value.findIndex((sample) => sample.round >= picked.value!);
  return found === -1 ? last : found;
});

export function SamplePanel(): JSX.Element {
  const index = shown.value;
  const sample = samples.value[index];
  const newest = picked.value === null;
  return (
    <Panel title="What it writes" class="sample" aside={<span class="count">{sample ? `${newest ? "newest · " : ""}round ${sample.round}` : ""}</span>}>
      <blockquote tabIndex={0} aria-label="Text by the model">
        {sample ? (
          <p key={sample.round} class="fresh">
            <b>{sample.prompt}</b>
            {format.prose(sample.text)}
          </p>
        ) : (
          <p class="quiet">The first sample arrives with the first round. Expect noise at first, then words, then sentences.</p>
        )}
      </blockquote>
      <Stepper index={index} />
    </Panel>
  );
}

function Stepper(props: { index: number }): JSX.Element {
  const all = samples.value;
  const last = all.length - 1;
  const sample = all[props.index];
  const go = (to: number) => {
    const target = Math.max(0, Math.min(last, to));
    picked.value = target === last ? null : all[target]!.round;
  };
  const few = all.length < 2;
  const words = sample ? `after round ${sample.round}, ${format.tokens(sample.tokens)}` : "no sample yet";
  return (
    <div class="stepper">
      <div class="stepper-row">
        <button type="button" class="icon-button" aria-label="Earlier sample" disabled={few || props.index <= 0} onClick={() => go(props.index - 1)}>
          <svg viewBox="0 0 24 24" aria-hidden="true">
            <path d="M15 5l-7 7 7 7" />
          </svg>
        </button>
        <input
          type="range"
          min={0}
          max={Math.max(1, last)}
          step={1}
          value={few ? 1 : props.index}
          disabled={few}
          aria-label="Sample over the run"
          aria-valuetext={words}
          onInput={(event) => go(Number(event.currentTarget.value))}
        />
        <button type="button" class="icon-button" aria-label="Later sample" disabled={few || props.index >= last} onClick={() => go(props.index + 1)}>
          <svg viewBox="0 0 24 24" aria-hidden="true">
            <path d="M9 5l7 7-7 7" />
          </svg>
        </button>
      </div>
      <p class="stepper-words">
        <span>{words}</span>
        <button type="button" class="text-button" hidden={picked.value === null} onClick={() => (picked.value = null)}>
          follow the newest
        </button>
      </p>
    </div>
  );
}
