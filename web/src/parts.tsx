/** Small pieces that several pages use. */

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import * as format from "./format";

/** A titled box. */
export function Panel(props: { title: string; class?: string; aside?: ComponentChildren; children: ComponentChildren }): JSX.Element {
  const id = `panel-${props.title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return (
    <section class={`panel ${props.class ?? ""}`} aria-labelledby={id}>
      <header>
        <h2 id={id}>{props.title}</h2>
        {props.aside}
      </header>
      {props.children}
    </section>
  );
}

/** Whether a text was copied just now, and how to copy it. */
export function useCopy(text: string): [boolean, () => void] {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return;
    const timer = setTimeout(() => setCopied(false), 1500);
    return () => clearTimeout(timer);
  }, [copied]);
  return [copied, () => void navigator.clipboard?.writeText(text).then(() => setCopied(true), () => {})];
}

/** The start of a hash; a click copies the whole. */
export function HashText(props: { value: string | null | undefined; what: string }): JSX.Element {
  const value = props.value;
  const [copied, copy] = useCopy(value ?? "");
  if (!value) return <span class="hash">–</span>;
  return (
    <button type="button" class="hash" title={`${value}\nclick to copy`} aria-label={`copy the ${props.what}, ${format.short(value)}`} onClick={copy}>
      {copied ? "copied " : format.short(value)}
    </button>
  );
}
