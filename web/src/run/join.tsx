/** How another machine takes part: the command with the ticket, to copy or to photograph. */

import type { JSX } from "preact";
import { renderSVG } from "uqr";
import { Panel, useCopy } from "../parts";

export function JoinPanel(props: { ticket: string }): JSX.Element {
  const command = `cairn join ${props.ticket}`;
  const [copied, copy] = useCopy(command);
  // The library draws nothing but squares of the text.
  const picture = renderSVG(props.ticket, { border: 2 });
  return (
    <Panel
      title="Take part from another machine"
      class="join"
      aside={
        <button type="button" class="copy" onClick={copy}>
          {copied ? "copied" : "copy the command"}
        </button>
      }
    >
      <div class="join-ways">
        <div class="join-words">
          <pre>
            <code>{command}</code>
          </pre>
          <p class="quiet">It trains there with a key of its own, and owns what it earns. The ticket is no secret: it says which run this is, and where to reach it.</p>
        </div>
        <div class="join-picture" role="img" aria-label="the ticket as a QR code" dangerouslySetInnerHTML={{ __html: picture }} />
      </div>
    </Panel>
  );
}
