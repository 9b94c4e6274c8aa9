// Several answers put in order: by a place given to each, or by their letters, best first.
import { useSignal } from "@preact/signals";
import type { Answer } from "../lib/generation";
import { t } from "../lib/i18n";
import { useKeys } from "../lib/keys";
import { announce } from "../lib/notices";
import { LETTERS, noPlaces, type Places, put, putNext, ranksOf } from "../lib/ranking";
import { AnswerText } from "./answer";
import { Key } from "./basics";
import { Icon } from "./icon";

type Props = {
  answers: Answer[];
  plain: boolean;
  ready: boolean;
  versions: (string | null)[] | null;
  sent: boolean;
  onSend: (ranks: number[]) => void;
};

export function Ranking({ answers, plain, ready, versions, sent, onSend }: Props) {
  const steps = useSignal<Places[]>([noPlaces(answers.length)]);
  const tying = useSignal(false);
  const places = steps.value.at(-1)!;
  const ranks = ranksOf(places);
  const open = ready && !sent;

  const step = (to: Places, at: number) => {
    if (!open) return;
    steps.value = [...steps.value, to];
    tying.value = false;
    announce(t(to[at] === null ? "rank.none_now" : "rank.now", { name: LETTERS[at]!, n: to[at] ?? 0 }));
  };
  const back = () => {
    if (open && steps.value.length > 1) steps.value = steps.value.slice(0, -1);
    tying.value = false;
  };
  const tie = () => {
    tying.value = open && places.some((place) => place !== null) && !tying.value;
    if (tying.value) announce(t("rank.tying"));
  };
  const send = () => {
    if (open && ranks) onSend(ranks);
  };
  const letters = LETTERS.slice(0, answers.length).map((letter) => letter.toLowerCase());
  useKeys([
    {
      keys: letters,
      label: t("rank.letters"),
      run: (event) => {
        const at = letters.indexOf(event.key.toLowerCase());
        step(putNext(places, at, tying.value), at);
      },
    },
    { keys: ["0"], label: t("rank.tie"), run: tie },
    { keys: ["Backspace"], label: t("rank.back"), run: back },
    { keys: ["Enter"], label: t("rank.send"), run: send },
  ]);
  return (
    <>
      <div class={`pair ranked of-${answers.length}`}>
        {answers.map((answer, at) => {
          const name = LETTERS[at]!;
          const place = sent && ranks ? ranks[at]! : places[at];
          return (
            <article key={at} class={`side${place === 1 ? " chosen" : ""}`}>
              <header>
                <span class="side-name">
                  <Key>{name}</Key>
                </span>
                {sent && versions && <span class="version">{versions[at] ?? t("compare.unknown")}</span>}
              </header>
              <div class="answer-text">
                <AnswerText answer={answer} tinted={false} plain={plain} />
              </div>
              {answer.error.value !== null && <p class="answer-failed">{answer.error.value}</p>}
              <div class="places" role="group" aria-label={t("rank.of", { name })}>
                {answers.map((_, index) => (
                  <button
                    key={index}
                    type="button"
                    disabled={!open}
                    aria-label={t("rank.place", { n: index + 1 })}
                    aria-pressed={place === index + 1}
                    onClick={() => step(put(places, at, index + 1), at)}
                  >
                    {index + 1}
                  </button>
                ))}
              </div>
            </article>
          );
        })}
      </div>
      {!sent && (
        <div class="rank-bar">
          <p class="soft">{tying.value ? t("rank.tying") : t("rank.hint")}</p>
          <button type="button" class="quiet" disabled={!open || steps.value.length < 2} onClick={back}>
            <Icon name="undo" size={18} /> {t("rank.back")}
          </button>
          <button type="button" class="primary" disabled={!open || !ranks} onClick={send}>
            {t("rank.send")} <Key>⏎</Key>
          </button>
        </div>
      )}
    </>
  );
}
