// Light, dark, or as the system has it.
import { effect } from "@preact/signals";
import { stored } from "./stored";

export type Theme = "auto" | "light" | "dark";
export const theme = stored<Theme>("theme", "auto");

effect(() => {
  document.documentElement.dataset.theme = theme.value;
});

/** The color that `--name` stands for now, as a canvas understands it. */
export function color(name: string): string {
  const probe = document.createElement("i");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
