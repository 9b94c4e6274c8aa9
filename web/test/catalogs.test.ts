import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import en from "../src/locales/en.json";
import zh from "../src/locales/zh.json";

type Entry = string | Record<string, string>;
const catalogs: Record<string, Record<string, Entry>> = { en, zh };

const forms = (entry: Entry): string[] => (typeof entry === "string" ? [entry] : Object.values(entry));
const placeholders = (text: string): string[] => [...text.matchAll(/\{(\w+)\}/g)].map((found) => found[1]!);
const allOf = (entry: Entry): string[] => [...new Set(forms(entry).flatMap(placeholders))].sort();

/** Every source file of the page as one text. */
function source(): string {
  const folder = join(import.meta.dirname, "..", "src");
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) =>
    /\.tsx?$/.test(name),
  );
  return files.map((name) => readFileSync(join(folder, name), "utf8")).join("\n");
}

describe("the catalogs", () => {
  it("have the same keys in the same order", () => {
    expect(Object.keys(zh)).toEqual(Object.keys(en));
  });

  it("have the same placeholders, and no empty text", () => {
    for (const key of Object.keys(en)) {
      const [english, chinese] = [catalogs.en![key]!, catalogs.zh![key]!];
      // A plural form may leave the number out ("one more minute"), the whole entry may not.
      expect(allOf(chinese), key).toEqual(allOf(english));
      for (const text of [...forms(english), ...forms(chinese)]) expect(text.trim(), key).not.toBe("");
    }
  });

  it("give every plural form that the language asks for", () => {
    for (const [locale, catalog] of Object.entries(catalogs)) {
      const asked = new Intl.PluralRules(locale).resolvedOptions().pluralCategories;
      for (const [key, entry] of Object.entries(catalog))
        if (typeof entry !== "string")
          expect(Object.keys(entry).sort(), `${locale} ${key}`).toEqual([...asked].sort());
    }
  });

  it("hold no key that the page does not use", () => {
    const text = source();
    const areas = new Set([...text.matchAll(/word\("(\w+)"/g)].map((found) => found[1]));
    const built = [...text.matchAll(/t\(`([\w.]+)\$\{/g)].map((found) => found[1]!);
    const screens = /name: "(\w+)", to:/g;
    const used = new Set([...text.matchAll(screens)].map((found) => found[1]));
    for (const key of Object.keys(en)) {
      const named = text.includes(`"${key}"`) || used.has(key) || areas.has(key.split(".")[0]);
      expect(named || built.some((start) => key.startsWith(start)), key).toBe(true);
    }
  });
});
