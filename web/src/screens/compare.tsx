import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { call } from "../lib/api";
import type { Choice, Completion } from "../lib/contract";
import { type Answer, type Generation, generate, isRunning } from "../lib/generation";
import { t } from "../lib/i18n";
import { addressOf, say } from "../lib/judgments";
import { useKeys } from "../lib/keys";
import { complain } from "../lib/notices";
import { model } from "../lib/session";
import { draft } from "../lib/stored";
import { suggestions } from "../lib/world";
import { AnswerText, targetOf } from "../parts/answer";
import { Head, Key } from "../parts/basics";
import { Composer, focusComposer } from "../parts/composer";
import { Strip } from "../parts/strip";
import { Town } from "../parts/town";

type Pair = { question: string; generation: Generation; order: [number, number] };

/** Two answers, blind and in random order; versions show after the vote. */
export function Compare() {
  const pair = useSignal<Pair | null>(null);
  const vote = useSignal<Choice | null>(null);
  const round = useSignal(Math.floor(Math.random() * 40));
  const versions = useSignal<(string | null)[] | null>(null);
  const text = draft("compare");
  const plain = model.value?.chat === false;
  const shown = pair.value?.order.map((choice) => pair.value!.generation.answers[choice]!) ?? [];
  const ready = shown.length === 2 && shown.every((answer) => answer.phase.value === "done");

  const ask = (question: string) => {
    if (shown.some(isRunning)) return;
    vote.value = null;
    versions.value = null;
    const generation = generate({
      conversation_id: null,
      ...(plain ? { prompt: question } : { messages: [{ role: "user", content: question }] }),
      settings: {
        temperature: 0.9,
        max_tokens: Math.min(256, Math.floor((model.value?.context ?? 512) / 2)),
        seed: null,
        choices: 2,
      },
      blind: true,
    });
    // Which side an answer stands on must say nothing about it.
    const order: [number, number] = Math.random() < 0.5 ? [0, 1] : [1, 0];
    pair.value = { question, generation, order };
    round.value += 1;
  };
  const choose = (choice: Choice) => {
    if (!ready || vote.value) return;
    vote.value = choice;
    void say(
      shown.map((answer) => targetOf(answer)!),
      { kind: "preference", choice },
    )
      .then(() => reveal(shown))
      .then((found) => (versions.value = found), complain);
  };
  const next = () => ask(suggestions(round.value, 1)[0]!);
  useKeys([
    { keys: ["1", "ArrowLeft"], label: t("vote.first"), run: () => choose("first") },
    { keys: ["2", "ArrowRight"], label: t("vote.second"), run: () => choose("second") },
    { keys: ["0"], label: t("vote.tie"), run: () => choose("tie") },
    { keys: ["x"], label: t("vote.both_bad"), run: () => choose("both_bad") },
    { keys: ["n"], label: t("compare.next"), run: next },
    { keys: ["/"], label: t("keys.write"), run: focusComposer },
  ]);
  return (
    <div class="screen compare">
      <Head title={t("compare")} lead={t("compare.lead")} />
      {pair.value ? (
        <>
          <p class="said">{pair.value.question}</p>
          <Pair answers={shown} plain={plain} vote={vote.value} versions={versions.value} onChoose={choose} />
          <Votes ready={ready} vote={vote.value} onChoose={choose} />
          <div class="row center after-vote" aria-live="polite">
            {vote.value && shown[1] && <Strip address={addressOf(targetOf(shown[1])!)} />}
            {(vote.value || shown.some((answer) => answer.phase.value === "failed")) && (
              <button type="button" class="primary" onClick={next}>
                {t("compare.next")} <Key>n</Key>
              </button>
            )}
          </div>
        </>
      ) : (
        <div class="welcome">
          <Town lit={6} />
          <ul class="suggestions">
            {suggestions(round.value, 3).map((question) => (
              <li key={question}>
                <button type="button" onClick={() => ask(question)}>
                  {question}
                </button>
              </li>
            ))}
          </ul>
        </div>
      )}
      <div class="chat-composer">
        <Composer
          text={text}
          placeholder={plain ? t("chat.begin") : t("compare.ask")}
          busy={shown.some(isRunning)}
          onStop={pair.value?.generation.cancel}
          onSend={ask}
        />
      </div>
    </div>
  );
}

/** The weight version that gave each answer. A blind answer names none; afterwards the gateway tells. */
async function reveal(answers: Answer[]): Promise<(string | null)[]> {
  const id = answers[0]?.completionId.value;
  const told = id ? await call<{ choices: Completion[] }>("GET", `/api/completions/${id}`) : { choices: [] };
  return answers.map(
    (answer) => told.choices.find((each) => each.choice === answer.choice)?.weight_version ?? null,
  );
}

type PairProps = {
  answers: Answer[];
  plain: boolean;
  vote: Choice | null;
  versions: (string | null)[] | null;
  onChoose: (choice: Choice) => void;
};

function Pair({ answers, plain, vote, versions, onChoose }: PairProps) {
  const box = useRef<HTMLDivElement>(null);
  return (
    <div class="pair" ref={box}>
      {answers.map((answer, side) => {
        const choice: Choice = side === 0 ? "first" : "second";
        const chosen = vote === choice;
        return (
          <article
            key={side}
            class={`side${chosen ? " chosen" : vote ? " unchosen" : ""}`}
            onDblClick={() => onChoose(choice)}
          >
            <header>
              <span class="side-name">{side === 0 ? t("compare.first") : t("compare.second")}</span>
              {vote && versions && <span class="version">{versions[side] ?? t("compare.unknown")}</span>}
            </header>
            <div class="answer-text">
              <AnswerText answer={answer} tinted={false} plain={plain} />
            </div>
            {answer.error.value !== null && <p class="answer-failed">{answer.error.value}</p>}
          </article>
        );
      })}
    </div>
  );
}

export function Votes({
  ready,
  vote,
  onChoose,
}: {
  ready: boolean;
  vote: Choice | null;
  onChoose: (choice: Choice) => void;
}) {
  const choices: [Choice, string, string][] = [
    ["first", "1", t("vote.first")],
    ["tie", "0", t("vote.tie")],
    ["both_bad", "x", t("vote.both_bad")],
    ["second", "2", t("vote.second")],
  ];
  return (
    <div class="votes" role="group" aria-label={t("vote")}>
      {choices.map(([choice, key, label]) => (
        <button
          key={choice}
          type="button"
          class={`vote ${choice}`}
          disabled={!ready || (vote !== null && vote !== choice)}
          aria-pressed={vote === choice}
          onClick={() => onChoose(choice)}
        >
          {label} <Key>{key}</Key>
        </button>
      ))}
    </div>
  );
}
