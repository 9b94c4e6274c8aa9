// What an edit changed, word by word; Chinese is cut into words too.
import { diffArrays } from "diff";

export type Piece = { text: string; change: "same" | "added" | "removed" };

/** The words, spaces and marks of `text`, in order; joined they are `text` again. */
export function words(text: string, locale = "zh"): string[] {
  return Array.from(
    new Intl.Segmenter(locale, { granularity: "word" }).segment(text),
    (part) => part.segment,
  );
}

export function difference(before: string, after: string, locale = "zh"): Piece[] {
  return diffArrays(words(before, locale), words(after, locale)).map((part) => ({
    text: part.value.join(""),
    change: part.added ? "added" : part.removed ? "removed" : "same",
  }));
}
