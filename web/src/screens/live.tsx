import { useComputed, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { generate } from "../lib/generation";
import { t } from "../lib/i18n";
import { addressOf } from "../lib/judgments";
import { isTyping, useKeys } from "../lib/keys";
import {
  flowing,
  hold,
  holding,
  marks,
  release,
  shownTokens,
  unwatch,
  watch,
  watched,
  wordsPerSecond,
} from "../lib/pacing";
import { model } from "../lib/session";
import { draft } from "../lib/stored";
import { suggestions } from "../lib/world";
import { targetOf } from "../parts/answer";
import { Head, Key, Segments } from "../parts/basics";
import { Composer, focusComposer } from "../parts/composer";
import { Icon } from "../parts/icon";
import { Strip } from "../parts/strip";
import { Tokens } from "../parts/tokens";
import { Town } from "../parts/town";

/** Hold + or - while the words appear. */
export function Live() {
  const question = useSignal("");
  const round = useSignal(Math.floor(Math.random() * 40));
  const text = draft("live");
  const plain = model.value?.chat === false;
  const ask = (said: string) => {
    question.value = said;
    round.value += 1;
    const generation = generate({
      conversation_id: null,
      ...(plain ? { prompt: said } : { messages: [{ role: "user", content: said }] }),
      settings: {
        temperature: 0.9,
        max_tokens: Math.min(256, Math.floor((model.value?.context ?? 512) / 2)),
        seed: null,
        choices: 1,
      },
      blind: false,
    });
    watch(generation.answers[0]!);
    (document.activeElement as HTMLElement | null)?.blur();
  };
  const next = () => ask(suggestions(round.value, 1)[0]!);
  useHolding();
  useKeys([
    { keys: ["+", "=", "ArrowUp"], label: t("live.hold_up"), run: () => hold(1) },
    { keys: ["-", "ArrowDown"], label: t("live.hold_down"), run: () => hold(-1) },
    { keys: ["n"], label: t("compare.next"), run: next },
    { keys: ["/"], label: t("keys.write"), run: focusComposer },
  ]);
  const answer = watched.value;
  const liked = useComputed(() => [...marks.value.values()].filter((value) => value > 0).length);
  const target = answer && targetOf(answer);
  return (
    <div class="screen live">
      <Head title={t("live")} lead={t("live.lead")}>
        <Segments
          label={t("live.pace")}
          value={wordsPerSecond.value}
          choices={[
            [3, t("live.slow")],
            [6, t("live.calm")],
            [12, t("live.quick")],
          ]}
          onChange={(pace) => (wordsPerSecond.value = pace)}
        />
      </Head>
      {answer && question.value ? (
        <>
          <p class={plain ? "prompt-text" : "said"}>{question.value}</p>
          <div class={`stage holding-${holding.value > 0 ? "up" : holding.value < 0 ? "down" : "none"}`}>
            <Tokens tokens={shownTokens.value} tinted={false} marks={marks.value} caret={flowing.value} />
            {answer.error.value !== null && (
              <p class="answer-failed">
                {t("answer.failed")} {answer.error.value}
              </p>
            )}
          </div>
          <Holds />
          <div class="row center after-vote">
            <p class="soft" aria-live="polite">
              {t("live.counts", { up: liked.value, down: marks.value.size - liked.value })}
            </p>
            {target && <Strip address={addressOf(target)} />}
            {!flowing.value && (
              <button type="button" class="primary" onClick={next}>
                {t("compare.next")} <Key>n</Key>
              </button>
            )}
          </div>
        </>
      ) : (
        <div class="welcome">
          <Town lit={8} />
          <ul class="suggestions">
            {suggestions(round.value, 3).map((said) => (
              <li key={said}>
                <button type="button" onClick={() => ask(said)}>
                  {said}
                </button>
              </li>
            ))}
          </ul>
        </div>
      )}
      <div class="chat-composer">
        <Composer
          text={text}
          placeholder={plain ? t("chat.begin") : t("chat.ask")}
          busy={flowing.value}
          onSend={ask}
        />
      </div>
    </div>
  );
}

function Holds() {
  const press = (value: 1 | -1) => ({
    onPointerDown: (event: PointerEvent) => {
      (event.currentTarget as Element).setPointerCapture(event.pointerId);
      hold(value);
    },
    onPointerUp: release,
    onPointerCancel: release,
    onContextMenu: (event: Event) => event.preventDefault(),
  });
  return (
    <div class="holds" role="group" aria-label={t("live.holds")}>
      <button
        type="button"
        class="hold down"
        aria-pressed={holding.value < 0}
        disabled={!flowing.value}
        {...press(-1)}
      >
        <Icon name="minus" size={28} />
        <span>{t("live.hold_down")}</span>
        <Key>-</Key>
      </button>
      <button
        type="button"
        class="hold up"
        aria-pressed={holding.value > 0}
        disabled={!flowing.value}
        {...press(1)}
      >
        <Icon name="plus" size={28} />
        <span>{t("live.hold_up")}</span>
        <Key>+</Key>
      </button>
    </div>
  );
}

/** Letting go of the key ends the hold; so does leaving the screen. */
function useHolding(): void {
  useEffect(() => {
    const up = (event: KeyboardEvent) => {
      if (!isTyping(event) && ["+", "=", "-", "_", "ArrowUp", "ArrowDown"].includes(event.key)) release();
    };
    addEventListener("keyup", up);
    return () => {
      removeEventListener("keyup", up);
      unwatch();
      watched.value = null;
    };
  }, []);
}
