// Where a selected part stands in an answer, in characters as the server counts them.

export type Part = { start: number; end: number };

/**
 * The place of `selected` in `text`, or null where it cannot be told. `at` is where the page shows it, in UTF-16
 * units; Markdown hides signs, so that where the words do not stand there, they must stand in one place only.
 */
export function findPart(text: string, selected: string, at: number): Part | null {
  const words = selected.trim();
  if (!words) return null;
  const shown = at + selected.indexOf(words);
  const first = text.indexOf(words);
  const start = text.startsWith(words, shown)
    ? shown
    : first >= 0 && first === text.lastIndexOf(words)
      ? first
      : -1;
  if (start < 0) return null;
  // The server counts code points; an emoji is one of them and two of ours.
  const count = (end: number) => [...text.slice(0, end)].length;
  return { start: count(start), end: count(start + words.length) };
}
