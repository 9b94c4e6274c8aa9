// Signals that this device remembers: choices of view, and texts not sent yet.
import { effect, type Signal, signal } from "@preact/signals";

const known = new Map<string, Signal<unknown>>();

/** A signal kept in the browser's local storage under `name`; `first` where nothing is kept. */
export function stored<T>(name: string, first: T): Signal<T> {
  const key = `rewardloop.${name}`;
  const found = known.get(key);
  if (found) return found as Signal<T>;
  const made = signal<T>(read(key, first));
  known.set(key, made as Signal<unknown>);
  effect(() => {
    const value = made.value;
    try {
      if (value === "" || value === null) localStorage.removeItem(key);
      else localStorage.setItem(key, JSON.stringify(value));
    } catch {
      // A browser that keeps nothing forgets; the page works on.
    }
  });
  return made;
}

/** A text that outlives the tab until it is sent. */
export const draft = (name: string): Signal<string> => stored(`draft.${name}`, "");

/** Forgets every unsent text, so that the next person at this device sees none. */
export function forgetDrafts(): void {
  for (const [key, one] of known) if (key.startsWith("rewardloop.draft.")) one.value = "";
  try {
    for (const key of Object.keys(localStorage))
      if (key.startsWith("rewardloop.draft.")) localStorage.removeItem(key);
  } catch {
    // Nothing is kept here.
  }
}

function read<T>(key: string, first: T): T {
  try {
    const text = localStorage.getItem(key);
    return text === null ? first : (JSON.parse(text) as T);
  } catch {
    return first;
  }
}
