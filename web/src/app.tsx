/** The frame around every page: mark, navigation, connection, look. */

import { useSignalEffect } from "@preact/signals";
import type { FunctionComponent, JSX } from "preact";
import { ChatPage } from "./chat/chat";
import { ContributePage } from "./contribute/contribute";
import { ConnectionNotice, ConnectionState } from "./connection";
import { run, state } from "./net/store";
import { Link, path } from "./router";
import { RunPage } from "./run/run";
import { RunsPage } from "./runs/runs";
import { Logo } from "./stones";
import { isDark, toggleTheme } from "./theme";

interface Page {
  path: string;
  name: string;
  view: FunctionComponent;
}

/** Every page of the navigation, in its order; a new page is one more line. */
const PAGES: Page[] = [
  { path: "/", name: "Run", view: RunPage },
  { path: "/runs", name: "Runs", view: RunsPage },
  { path: "/chat", name: "Chat", view: ChatPage },
  { path: "/contribute", name: "Contribute", view: ContributePage },
];

export function App(): JSX.Element {
  const page = PAGES.find((known) => known.path === path.value.replace(/(.)\/$/, "$1"));
  useSignalEffect(() => {
    const now = PAGES.find((known) => known.path === path.value)?.name ?? "Not found";
    const progress = run.value?.phase === "training" ? `${run.value.round}/${run.value.rounds} · ` : "";
    document.title = `${progress}${now} · Cairn`;
  });
  const View = page?.view ?? NotFound;
  return (
    <>
      <a class="skip" href="#main">
        Skip to the content
      </a>
      <header class="top-bar">
        <div class="top-inner">
          <Link to="/" class="brand">
            <Logo />
            <span>Cairn</span>
          </Link>
          <nav aria-label="Pages">
            {PAGES.map((known) => (
              <Link key={known.path} to={known.path} current={known === page}>
                {known.name}
              </Link>
            ))}
          </nav>
          <ConnectionState />
          <ThemeToggle />
        </div>
      </header>
      <ConnectionNotice />
      <main id="main" tabIndex={-1}>
        <View />
      </main>
      <footer>
        <span>Cairn {state.value?.version ?? ""}</span>
        <span>Everyone adds a stone; everyone can prove which stone is theirs.</span>
      </footer>
    </>
  );
}

function ThemeToggle(): JSX.Element {
  const dark = isDark();
  const label = dark ? "Use the light look" : "Use the dark look";
  return (
    <button type="button" class="icon-button" aria-label={label} title={label} onClick={toggleTheme}>
      <svg viewBox="0 0 24 24" aria-hidden="true">
        {dark ? (
          <path d="M12 7.500a4.500 4.500 0 1 0 0 9 4.500 4.500 0 0 0 0-9zM12 1.500v3M12 19.500v3M1.500 12h3M19.500 12h3M4.600 4.600l2.100 2.100M17.300 17.300l2.100 2.100M4.600 19.400l2.100-2.100M17.300 6.700l2.100-2.100" />
        ) : (
          <path d="M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500z" />
        )}
      </svg>
    </button>
  );
}

function NotFound(): JSX.Element {
  return (
    <section class="empty">
      <h1>There is no page here</h1>
      <p>
        <Link to="/">Go to the run</Link>, or <Link to="/chat">talk to the model</Link>.
      </p>
    </section>
  );
}
