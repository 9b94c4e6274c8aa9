import { useSignal } from "@preact/signals";
import { call } from "../lib/api";
import type { Choice, Completion } from "../lib/contract";
import { type Answer, type Generation, generate, isRunning } from "../lib/generation";
import { t } from "../lib/i18n";
import { addressOf, say } from "../lib/judgments";
import { useKeys } from "../lib/keys";
import { complain } from "../lib/notices";
import { MOST_ANSWERS, shuffled } from "../lib/ranking";
import { model } from "../lib/session";
import { draft, stored } from "../lib/stored";
import { suggestions } from "../lib/world";
import { AnswerText, targetOf } from "../parts/answer";
import { Head, Key, Segments } from "../parts/basics";
import { Composer, focusComposer } from "../parts/composer";
import { Ranking } from "../parts/ranking";
import { Strip } from "../parts/strip";
import { Town } from "../parts/town";

type Round = { question: string; generation: Generation; order: number[] };

const counted = stored<number>("compare.count", 2);
const COUNTS = [2, 3, MOST_ANSWERS];

/** Answers, blind and in random order: of two the better one, more in order of merit; versions show afterwards. */
export function Compare() {
  const round = useSignal<Round | null>(null);
  const said = useSignal<Choice | number[] | null>(null);
  const suggested = useSignal(Math.floor(Math.random() * 40));
  const versions = useSignal<(string | null)[] | null>(null);
  const text = draft("compare");
  const plain = model.value?.chat === false;
  const count = COUNTS.includes(counted.value) ? counted.value : 2;
  const shown = round.value?.order.map((choice) => round.value!.generation.answers[choice]!) ?? [];
  const ready = shown.length > 1 && shown.every((answer) => answer.phase.value === "done");

  const ask = (question: string) => {
    if (shown.some(isRunning)) return;
    said.value = null;
    versions.value = null;
    const generation = generate({
      conversation_id: null,
      ...(plain ? { prompt: question } : { messages: [{ role: "user", content: question }] }),
      settings: {
        temperature: 0.9,
        max_tokens: Math.min(256, Math.floor((model.value?.context ?? 512) / 2)),
        seed: null,
        choices: count,
      },
      blind: true,
    });
    round.value = { question, generation, order: shuffled(count) };
    suggested.value += 1;
  };
  const judge = (what: Choice | number[]) => {
    if (!ready || said.value) return;
    said.value = what;
    void say(
      shown.map((answer) => targetOf(answer)!),
      Array.isArray(what) ? { kind: "ranking", ranks: what } : { kind: "preference", choice: what },
    )
      .then(() => reveal(shown))
      .then((found) => (versions.value = found), complain);
  };
  const next = () => ask(suggestions(suggested.value, 1)[0]!);
  useKeys([
    { keys: ["n"], label: t("compare.next"), run: next },
    { keys: ["/"], label: t("keys.write"), run: focusComposer },
  ]);
  const last = shown.at(-1);
  const shared = { answers: shown, plain, ready, versions: versions.value };
  return (
    <div class="screen compare">
      <Head title={t("compare")} lead={t("compare.lead")}>
        <Segments
          label={t("compare.count")}
          value={count}
          choices={COUNTS.map((n) => [n, t("compare.answers", { n })])}
          onChange={(n) => (counted.value = n)}
        />
      </Head>
      {round.value ? (
        <>
          <p class="said">{round.value.question}</p>
          {shown.length > 2 ? (
            <Ranking
              key={round.value.generation.request}
              {...shared}
              sent={said.value !== null}
              onSend={judge}
            />
          ) : (
            <Pair {...shared} vote={Array.isArray(said.value) ? null : said.value} onChoose={judge} />
          )}
          <div class="row center after-vote" aria-live="polite">
            {said.value && last && <Strip address={addressOf(targetOf(last)!)} />}
            {(said.value || shown.some((answer) => answer.phase.value === "failed")) && (
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
            {suggestions(suggested.value, 3).map((question) => (
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
          onStop={round.value?.generation.cancel}
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
  ready: boolean;
  vote: Choice | null;
  versions: (string | null)[] | null;
  onChoose: (choice: Choice) => void;
};

function Pair({ answers, plain, ready, vote, versions, onChoose }: PairProps) {
  useKeys([
    { keys: ["1", "ArrowLeft"], label: t("vote.first"), run: () => onChoose("first") },
    { keys: ["2", "ArrowRight"], label: t("vote.second"), run: () => onChoose("second") },
    { keys: ["0"], label: t("vote.tie"), run: () => onChoose("tie") },
    { keys: ["x"], label: t("vote.both_bad"), run: () => onChoose("both_bad") },
  ]);
  return (
    <>
      <div class="pair">
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
      <Votes ready={ready} vote={vote} onChoose={onChoose} />
    </>
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
