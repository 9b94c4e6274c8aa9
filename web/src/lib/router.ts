// Addresses of the page: plain links, the browser's history, one signal.
import { computed, signal } from "@preact/signals";

const here = () => location.pathname;
export const path = signal(here());
export const segments = computed(() => path.value.split("/").filter(Boolean));

export function go(to: string, replace = false): void {
  if (to === here()) return;
  history[replace ? "replaceState" : "pushState"](null, "", to);
  path.value = here();
}

/** The secret behind `#` in a one-time link; it never reaches a server's log, and leaves the address bar at once. */
export function takeSecret(): string {
  const secret = location.hash.slice(1);
  if (secret) history.replaceState(null, "", location.pathname);
  return secret;
}

addEventListener("popstate", () => {
  path.value = here();
});

document.addEventListener("click", (event) => {
  const link = (event.target as Element | null)?.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button !== 0) return;
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const to = link.getAttribute("href")!;
  // Only our own links, marked as such: one that a model wrote opens like any other.
  if (!link.hasAttribute("data-link") || !to.startsWith("/")) return;
  event.preventDefault();
  go(to);
});
