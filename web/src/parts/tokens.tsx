// An answer token by token, tinted by reward, with marks of live votes; the number on hover and at the caret.
import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import type { Token } from "../lib/contract";
import { signed, t } from "../lib/i18n";
import { announce } from "../lib/notices";
import { rewardScale } from "../lib/rewards";
import { tintClass } from "../lib/tint";

type Marks = ReadonlyMap<number, number>;
type Tip = { index: number; left: number; top: number };

export function Tokens({
  tokens,
  tinted,
  marks,
  caret,
}: {
  tokens: readonly Token[];
  tinted: boolean;
  marks?: Marks;
  caret?: boolean;
}) {
  const box = useRef<HTMLDivElement>(null);
  const tip = useSignal<Tip | null>(null);
  const scale = rewardScale.value;

  const point = (span: HTMLElement | null) => {
    const index = Number(span?.dataset.i ?? -1);
    if (!span || index < 0 || !box.current) {
      tip.value = null;
      return;
    }
    const first = span.getClientRects()[0];
    const around = box.current.getBoundingClientRect();
    if (first)
      tip.value = { index, left: first.left - around.left + first.width / 2, top: first.top - around.top };
  };
  const move = (event: KeyboardEvent) => {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!step || !tinted || !box.current) return;
    event.preventDefault();
    event.stopPropagation();
    const index = Math.max(
      0,
      Math.min(tokens.length - 1, (tip.value?.index ?? (step > 0 ? -1 : tokens.length)) + step),
    );
    point(box.current.querySelector<HTMLElement>(`[data-i="${index}"]`));
    announce(`${tokens[index]?.text ?? ""} ${number(tokens[index])}`);
  };

  const shown = tip.value ? tokens[tip.value.index] : undefined;
  return (
    <div
      ref={box}
      class={tinted ? "tokens tinted" : "tokens"}
      tabIndex={tinted ? 0 : undefined}
      role={tinted ? "group" : undefined}
      aria-label={tinted ? t("tokens.label") : undefined}
      onKeyDown={move}
      onBlur={() => (tip.value = null)}
      onPointerOver={(event) => tinted && point((event.target as Element).closest<HTMLElement>("[data-i]"))}
      onPointerLeave={() => (tip.value = null)}
    >
      {tokens.map((token, index) => (
        <Piece
          key={index}
          index={index}
          text={token.text}
          look={tinted ? tintClass(token.reward, scale) : ""}
          mark={marks?.get(index) ?? 0}
          pointed={tip.value?.index === index}
        />
      ))}
      {caret && <i class="caret" aria-hidden="true" />}
      {tip.value && shown && (
        <output
          class="token-tip"
          style={{ left: `${tip.value.left}px`, top: `${tip.value.top}px` }}
          aria-hidden="true"
        >
          {number(shown)}
        </output>
      )}
    </div>
  );
}

const number = (token: Token | undefined): string =>
  token?.reward == null ? t("tokens.none") : signed(token.reward);

type PieceProps = { index: number; text: string; look: string; mark: number; pointed: boolean };

function Piece({ index, text, look, mark, pointed }: PieceProps) {
  const [, blank = "", letters = ""] = /^(\s*)([\s\S]*)$/.exec(text) ?? [];
  const classes = [look, mark > 0 ? "mark-up" : mark < 0 ? "mark-down" : "", pointed ? "pointed" : ""]
    .filter(Boolean)
    .join(" ");
  // Blanks in front of a word stay plain, so that a row of tinted words reads as words.
  return (
    <>
      {blank}
      <span data-i={index} class={classes || undefined}>
        {letters}
      </span>
    </>
  );
}

export function Legend() {
  const scale = rewardScale.value;
  return (
    <div class="legend" aria-hidden="true">
      <span>{signed(-scale)}</span>
      <i class="legend-bar">
        {[-4, -3, -2, -1, 0, 1, 2, 3, 4].map((level) => (
          <i key={level} class={tintClass((level / 4) * scale * 1.01, scale)} />
        ))}
      </i>
      <span>{signed(scale)}</span>
    </div>
  );
}
