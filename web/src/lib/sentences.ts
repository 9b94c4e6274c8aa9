// Streaming text is read out by the sentence: a screen reader that gets every token says nothing whole.

const END = /[.!?…]+["'”’)\]]*\s|[。！？…]+[”’）】]*|\n+/g;

/** Splits off the whole sentences at the front of `text`: [sentences, what remains]. */
export function splitSentences(text: string): [string[], string] {
  const whole: string[] = [];
  let from = 0;
  for (const match of text.matchAll(END)) {
    const end = match.index + match[0].length;
    const sentence = text.slice(from, end).trim();
    if (sentence) whole.push(sentence);
    from = end;
  }
  return [whole, text.slice(from)];
}
