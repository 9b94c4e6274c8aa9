// Marking a part of an answer: select it, and say what it is.
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { Target } from "../lib/contract";
import { word } from "../lib/i18n";
import { say } from "../lib/judgments";
import { complain } from "../lib/notices";
import { findPart, type Part } from "../lib/parts";

const CATEGORIES: [string, number][] = [
  ["wrong_facts", -1],
  ["topic_drift", -1],
  ["rudeness", -1],
  ["well_said", 1],
];

type Marked = Part & { left: number; top: number };

export function Markable({
  target,
  text,
  children,
}: {
  target: Target;
  text: string;
  children: ComponentChildren;
}) {
  const box = useRef<HTMLDivElement>(null);
  const marked = useSignal<Marked | null>(null);
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
  const mark = (category: string, severity: number) => {
    const { start, end } = marked.value!;
    void say(target, { kind: "span", start, end, category, severity }).catch(complain);
    getSelection()?.removeAllRanges();
  };
  return (
    <div class="markable" ref={box}>
      {children}
      {marked.value && (
        <div
          class="marking"
          role="toolbar"
          style={{ left: `${marked.value.left}px`, top: `${marked.value.top}px` }}
          onPointerDown={(event) => event.preventDefault()}
        >
          {CATEGORIES.map(([category, severity]) => (
            <button
              key={category}
              type="button"
              class={severity > 0 ? "good" : "bad"}
              onClick={() => mark(category, severity)}
            >
              {word("category", category)}
            </button>
          ))}
        </div>
      )}
    </div>
  );
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
