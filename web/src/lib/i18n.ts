// Two catalogs with the same keys. `{name}` is filled in; a catalog entry with plural forms is chosen by `n`.
import { signal } from "@preact/signals";
import en from "../locales/en.json";
import zh from "../locales/zh.json";
import type { Language } from "./contract";

export type Plural = Partial<Record<Intl.LDMLPluralRule, string>> & { other: string };
export type Catalog = Record<string, string | Plural>;
export type Key = keyof typeof en;
export type Values = Record<string, string | number>;

const CATALOGS: Record<Language, Catalog> = { en, zh };
const STORED = "rewardloop.language";

export const language = signal<Language>("en");

/** Shows the page in `chosen` and remembers it on this device. */
export function setLanguage(chosen: Language): void {
  language.value = chosen;
  document.documentElement.lang = chosen === "zh" ? "zh-CN" : "en";
  try {
    localStorage.setItem(STORED, chosen);
  } catch {
    // A browser that keeps nothing still shows the page.
  }
}

/** The language last chosen on this device, else the browser's. */
export function firstLanguage(): Language {
  let stored: string | null = null;
  try {
    stored = localStorage.getItem(STORED);
  } catch {
    // See setLanguage.
  }
  if (stored === "en" || stored === "zh") return stored;
  return navigator.language?.toLowerCase().startsWith("zh") ? "zh" : "en";
}

export function translate(catalog: Catalog, locale: string, key: string, values: Values = {}): string {
  const entry = catalog[key];
  if (entry === undefined) return key;
  const form =
    typeof entry === "string"
      ? entry
      : (entry[new Intl.PluralRules(locale).select(Number(values.n ?? 0))] ?? entry.other);
  return form.replace(/\{(\w+)\}/g, (whole, name: string) => {
    const value = values[name];
    if (value === undefined) return whole;
    return typeof value === "number" ? new Intl.NumberFormat(locale).format(value) : value;
  });
}

export const t = (key: Key, values?: Values): string =>
  translate(CATALOGS[language.value], language.value, key, values);

/** The word for a name that the server sent, or the name itself where the catalogs have none. */
export function word(area: string, name: string): string {
  const key = `${area}.${name}`;
  return key in CATALOGS[language.value] ? t(key as Key) : name.replaceAll("_", " ");
}

// ---------------------------------------------------------------- numbers and times

const locale = () => (language.value === "zh" ? "zh-CN" : "en");

export const number = (value: number, digits = 0): string =>
  new Intl.NumberFormat(locale(), { maximumFractionDigits: digits, minimumFractionDigits: digits }).format(
    value,
  );

export const compact = (value: number): string =>
  new Intl.NumberFormat(locale(), { notation: "compact", maximumFractionDigits: 1 }).format(value);

export const percent = (value: number): string =>
  new Intl.NumberFormat(locale(), { style: "percent", maximumFractionDigits: 0 }).format(value);

export const signed = (value: number): string =>
  new Intl.NumberFormat(locale(), {
    signDisplay: "exceptZero",
    maximumFractionDigits: 2,
    minimumFractionDigits: 2,
  }).format(value);

export const dateTime = (iso: string): string =>
  new Intl.DateTimeFormat(locale(), { dateStyle: "medium", timeStyle: "short" }).format(new Date(iso));

export const day = (iso: string): string =>
  new Intl.DateTimeFormat(locale(), { dateStyle: "medium" }).format(new Date(iso));

/** "3 minutes ago", in the unit that fits. */
export function ago(iso: string, now = Date.now()): string {
  const seconds = Math.round((new Date(iso).getTime() - now) / 1000);
  const units: [Intl.RelativeTimeFormatUnit, number][] = [
    ["day", 86400],
    ["hour", 3600],
    ["minute", 60],
  ];
  const format = new Intl.RelativeTimeFormat(locale(), { numeric: "auto" });
  for (const [unit, size] of units)
    if (Math.abs(seconds) >= size) return format.format(Math.round(seconds / size), unit);
  return format.format(Math.min(seconds, 0), "second");
}
