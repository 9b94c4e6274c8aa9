// Short notices at the edge of the page, and sentences for screen readers.
import { signal } from "@preact/signals";
import { ApiError } from "./api";
import { t } from "./i18n";

export type Notice = {
  id: number;
  tone: "plain" | "good" | "bad";
  text: string;
  action?: { label: string; run: () => void };
};

export const notices = signal<readonly Notice[]>([]);
export const announcement = signal("");
let count = 0;

export function notify(text: string, tone: Notice["tone"] = "plain", action?: Notice["action"]): void {
  const id = ++count;
  notices.value = [
    ...notices.value.filter((one) => one.text !== text),
    { id, tone, text, ...(action && { action }) },
  ].slice(-3);
  setTimeout(() => dismiss(id), tone === "bad" ? 12_000 : 5_000);
}

export function dismiss(id: number): void {
  notices.value = notices.value.filter((one) => one.id !== id);
}

export function announce(text: string): void {
  announcement.value = text;
}

/** What went wrong and what to do, in the person's language; the server's own words follow where they say more. */
export function explain(error: unknown): string {
  if (!(error instanceof ApiError)) return error instanceof Error ? error.message : String(error);
  if (error.status === 0) return t("error.offline");
  if (error.status === 401) return t("error.session");
  if (error.status === 403) return t("error.forbidden");
  if (error.status === 429) return t("error.busy");
  if (error.status === 507) return t("error.full");
  if (error.status >= 500) return t("error.server", { why: error.message });
  return error.message;
}

export const complain = (error: unknown): void => notify(explain(error), "bad");
