/** Light, dark, or what the system prefers; a choice is remembered in this browser. */

import { effect, signal } from "@preact/signals";

export type Theme = "auto" | "light" | "dark";

const KEY = "cairn.theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const systemDark = signal(system.matches);

export const theme = signal<Theme>(stored());

system.addEventListener("change", (event) => {
  systemDark.value = event.matches;
});

effect(() => {
  if (theme.value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
});

export function isDark(): boolean {
  return theme.value === "auto" ? systemDark.value : theme.value === "dark";
}

/** Goes to the other look; back at the system's own look, the choice is forgotten. */
export function toggleTheme(): void {
  const next: Theme = isDark() ? "light" : "dark";
  const asSystem = (next === "dark") === systemDark.value;
  theme.value = asSystem ? "auto" : next;
  try {
    if (asSystem) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, next);
  } catch {
    // A browser that keeps nothing still switches for this visit.
  }
}

function stored(): Theme {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : "auto";
  } catch {
    return "auto";
  }
}
