// The keyboard. A single key does nothing while someone types, and nothing while an input method composes.
import { signal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { stored } from "./stored";

export type Shortcut = {
  keys: string[]; // as in KeyboardEvent.key; "Ctrl+Enter" works in inputs too
  label: string;
  run: (event: KeyboardEvent) => void;
};
type Layer = { shortcuts: () => Shortcut[]; exclusive: boolean };

const layers = signal<readonly Layer[]>([]);
/** Single keys can be switched off, as speech input and unsteady hands need (WCAG 2.1.4). */
export const singleKeys = stored<boolean>("keys", true);

export const currentShortcuts = (): Shortcut[] =>
  layers.value.flatMap((layer) => (layer.exclusive ? [] : layer.shortcuts()));

/** Whether `event` belongs to a text being written. */
export function isTyping(event: KeyboardEvent): boolean {
  if (event.isComposing || event.keyCode === 229) return true;
  const target = event.target as HTMLElement | null;
  return !!target?.closest?.(
    "input:not([type=checkbox],[type=radio],[type=range]), textarea, select, [contenteditable]",
  );
}

/** Keys that work while the component is shown; an `exclusive` layer (a dialog) silences those beneath. */
export function useKeys(shortcuts: Shortcut[], exclusive = false): void {
  const current = useRef(shortcuts);
  current.current = shortcuts;
  // At once, for a second key may follow the first before anything is drawn.
  useLayoutEffect(() => {
    const layer: Layer = { shortcuts: () => current.current, exclusive };
    layers.value = [...layers.value, layer];
    return () => {
      layers.value = layers.value.filter((other) => other !== layer);
    };
  }, [exclusive]);
}

export function nameOf(event: KeyboardEvent): string {
  const command = event.ctrlKey || event.metaKey;
  if (command) return `Ctrl+${event.key}`;
  return event.key.length === 1 ? event.key.toLowerCase() : event.key;
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.altKey || event.isComposing || event.keyCode === 229) return;
  const name = nameOf(event);
  const single = !name.startsWith("Ctrl+");
  // Enter on a button presses that button.
  if (name === "Enter" && (event.target as HTMLElement).closest?.("button, a, summary")) return;
  if (single && (isTyping(event) || !singleKeys.value)) return;
  for (const layer of layers.value.toReversed()) {
    const found = layer.shortcuts().find((shortcut) => shortcut.keys.includes(name));
    if (found) {
      event.preventDefault();
      found.run(event);
      return;
    }
    if (layer.exclusive) return;
  }
});
