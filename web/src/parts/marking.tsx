// Marking a part of an answer: select it, with the pointer or word by word with the keys, and say what it is.
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import type { Target } from "../lib/contract";
import { language, t, word } from "../lib/i18n";
import { say } from "../lib/judgments";
import { announce, complain } from "../lib/notices";
import { findPart, type Part } from "../lib/parts";
import { type Choice, moveChoice, wordsOf } from "../lib/words";
import { Key } from "./basics";

const CATEGORIES: [string, number][] = [
  ["wrong_facts", -1],
  ["topic_drift", -1],
  ["rudeness", -1],
  ["well_said", 1],
];

type Marked = Part & { left: number; top: number };
type Props = {
  target: Target;
  text: string;
  byKeys: boolean;
  onEnd: () => void;
  children: ComponentChildren;
};

export function Markable({ target, text, byKeys, onEnd, children }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const marked = useSignal<Marked | null>(null);
  const choice = useRef<Choice>({ anchor: 0, head: 0 });
  useEffect(() => {
    const look = () => {
      const selection = getSelection();
      const range = selection?.rangeCount ? selection.getRangeAt(0) : null;
      const inside = range && !range.collapsed && box.current?.contains(range.commonAncestorContainer);
      marked.value = inside ? place(range, box.current!, text) : null;
    };
    document.addEventListener("selectionchange", look);
    return () => document.removeEventListener("selectionchange", look);
  }, [text]);
  // At once, for an arrow may follow before anything is drawn.
  useLayoutEffect(() => {
    if (!byKeys) return;
    const before = document.activeElement as HTMLElement | null;
    box.current?.focus();
    choose({ anchor: 0, head: 0 });
    return () => {
      if (document.activeElement === document.body || box.current?.contains(document.activeElement))
        before?.focus();
    };
  }, [byKeys]);

  const choose = (to: Choice) => {
    const range = box.current && rangeOf(box.current, to);
    if (!range) return;
    choice.current = to;
    getSelection()?.removeAllRanges();
    getSelection()?.addRange(range);
    range.startContainer.parentElement?.scrollIntoView({ block: "nearest" });
    // At once: the event of the selection comes after the next key.
    marked.value = place(range, box.current!, text);
    announce(t(marked.value ? "mark.chosen" : "mark.unclear", { words: range.toString() }));
  };
  const end = () => {
    getSelection()?.removeAllRanges();
    onEnd();
  };
  const mark = ([category, severity]: [string, number]) => {
    const { start, end: last } = marked.value!;
    void say(target, { kind: "span", start, end: last, category, severity }).catch(complain);
    announce(t("mark.said", { category: word("category", category) }));
    end();
  };
  const press = (event: KeyboardEvent) => {
    if (!byKeys || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const category = CATEGORIES[Number(event.key) - 1];
    const moved =
      event.target === box.current &&
      moveChoice(choice.current, countWords(box.current!), event.key, event.shiftKey);
    if (moved) choose(moved);
    else if (event.key === "Escape") end();
    else if (category && marked.value) mark(category);
    else if (event.key === "Enter" && event.target === box.current)
      box.current?.querySelector<HTMLElement>(".marking button")?.focus();
    // Other letters and digits belong to the screen beneath, and rest meanwhile.
    else if (event.target !== box.current || event.key.length > 1) return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div
      class={byKeys ? "markable by-keys" : "markable"}
      ref={box}
      {...(byKeys && { tabIndex: -1, role: "application", "aria-label": t("mark.hint") })}
      onKeyDown={press}
      onFocusOut={(event) => {
        if (byKeys && !box.current?.contains(event.relatedTarget as Node | null)) end();
      }}
    >
      {children}
      {marked.value && (
        <div
          class="marking"
          role="toolbar"
          aria-label={t("mark")}
          style={{ left: `${marked.value.left}px`, top: `${marked.value.top}px` }}
          onPointerDown={(event) => event.preventDefault()}
        >
          {CATEGORIES.map(([category, severity], index) => (
            <button
              key={category}
              type="button"
              class={severity > 0 ? "good" : "bad"}
              onClick={() => mark([category, severity])}
            >
              {word("category", category)} {byKeys && <Key>{index + 1}</Key>}
            </button>
          ))}
        </div>
      )}
      {byKeys && <p class="mark-hint">{t(marked.value ? "mark.hint" : "mark.unclear_hint")}</p>}
    </div>
  );
}

/** The text nodes of the words shown in `box`, without what is shown about them. */
function nodesOf(box: HTMLElement): Text[] {
  const walker = document.createTreeWalker(box, NodeFilter.SHOW_TEXT, (node) =>
    node.parentElement?.closest(".marking, .mark-hint, output")
      ? NodeFilter.FILTER_REJECT
      : NodeFilter.FILTER_ACCEPT,
  );
  const nodes: Text[] = [];
  while (walker.nextNode()) nodes.push(walker.currentNode as Text);
  return nodes;
}

const wordsIn = (nodes: Text[]): Part[] => wordsOf(nodes.map((node) => node.data).join(""), language.value);
const countWords = (box: HTMLElement): number => wordsIn(nodesOf(box)).length;

function rangeOf(box: HTMLElement, { anchor, head }: Choice): Range | null {
  const nodes = nodesOf(box);
  const words = wordsIn(nodes);
  const [first, last] = [words[Math.min(anchor, head)], words[Math.max(anchor, head)]];
  if (!first || !last) return null;
  const range = document.createRange();
  let from = 0;
  for (const node of nodes) {
    const to = from + node.length;
    if (first.start >= from && first.start < to) range.setStart(node, first.start - from);
    if (last.end > from && last.end <= to) range.setEnd(node, last.end - from);
    from = to;
  }
  return range;
}

function place(range: Range, box: HTMLElement, text: string): Marked | null {
  const before = document.createRange();
  before.setStart(box, 0);
  before.setEnd(range.startContainer, range.startOffset);
  const part = findPart(text, range.toString(), before.toString().length);
  const last = [...range.getClientRects()].at(-1);
  if (!part || !last) return null;
  const around = box.getBoundingClientRect();
  const left = Math.max(0, Math.min(last.right - around.left - 120, around.width - 330));
  return { ...part, left, top: last.bottom - around.top + 8 };
}
