// Words of a text, and a choice of neighboring ones that the arrow keys move and widen.
import type { Part } from "./parts";

/** Where the words of `text` stand, in UTF-16 units; signs between them are no words. */
export function wordsOf(text: string, language?: string): Part[] {
  return [...new Intl.Segmenter(language, { granularity: "word" }).segment(text)]
    .filter(({ segment }) => /[\p{L}\p{N}\p{S}\p{Extended_Pictographic}]/u.test(segment))
    .map(({ segment, index }) => ({ start: index, end: index + segment.length }));
}

/** Words from `anchor` to `head`, whichever comes first; the keys move `head`. */
export type Choice = { anchor: number; head: number };

/** `choice` among `count` words after an arrow key, Home or End; null for another key. */
export function moveChoice(choice: Choice, count: number, key: string, widen: boolean): Choice | null {
  const to = {
    ArrowLeft: choice.head - 1,
    ArrowRight: choice.head + 1,
    Home: 0,
    End: count - 1,
  }[key];
  if (to === undefined) return null;
  const head = Math.max(0, Math.min(count - 1, to));
  return { anchor: widen ? choice.anchor : head, head };
}
