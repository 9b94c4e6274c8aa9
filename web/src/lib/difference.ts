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

/** The pieces of both texts in order; words that changed side by side are one piece taken out and one put in. */
export function difference(before: string, after: string, locale = "zh"): Piece[] {
  const parts = diffArrays(words(before, locale), words(after, locale)).map((part): Piece => {
    return { text: part.value.join(""), change: part.added ? "added" : part.removed ? "removed" : "same" };
  });
  return join(parts);
}

function join(parts: Piece[]): Piece[] {
  const joined: Piece[] = [];
  let removed = "";
  let added = "";
  const flush = () => {
    if (removed) joined.push({ text: removed, change: "removed" });
    if (added) joined.push({ text: added, change: "added" });
    removed = added = "";
  };
  parts.forEach((part, at) => {
    const between =
      part.change === "same" && !part.text.trim() && (removed || added) && at < parts.length - 1;
    if (part.change === "removed" || between) removed += part.text;
    if (part.change === "added" || between) added += part.text;
    if (part.change !== "same" || between) return;
    flush();
    joined.push(part);
  });
  flush();
  return joined;
}
