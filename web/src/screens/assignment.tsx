// One assignment of the queue: what was asked, and the answers to compare, rate or correct.
import { useSignal } from "@preact/signals";
import type { Assignment, Message, QueueAnswer } from "../lib/contract";
import { t, word } from "../lib/i18n";
import { useKeys } from "../lib/keys";
import { markdown } from "../lib/markdown";
import { Key } from "../parts/basics";
import { Icon } from "../parts/icon";
import { Editor, StarRow } from "../parts/opinion";
import { Votes } from "./compare";

export const Prompt = ({ prompt }: { prompt: Message[] | string }) =>
  typeof prompt === "string" ? (
    <p class="prompt-text">{prompt}</p>
  ) : (
    <>
      {prompt.map((message, index) => (
        <p key={index} class={message.role === "user" ? "said" : "prompt-text"}>
          {message.content}
        </p>
      ))}
    </>
  );

export function Task({ item, onAnswer }: { item: Assignment; onAnswer: (judgment: QueueAnswer) => void }) {
  if (item.task === "compare") return <CompareTask item={item} onAnswer={onAnswer} />;
  if (item.task === "rate") return <RateTask item={item} onAnswer={onAnswer} />;
  return <EditTask item={item} onAnswer={onAnswer} />;
}

type TaskProps = { item: Assignment; onAnswer: (judgment: QueueAnswer) => void };
const Text = ({ text }: { text: string }) => (
  <div class="answer-text markdown" dangerouslySetInnerHTML={{ __html: markdown(text) }} />
);

function CompareTask({ item, onAnswer }: TaskProps) {
  useKeys([
    {
      keys: ["1", "ArrowLeft"],
      label: t("vote.first"),
      run: () => onAnswer({ choice: "first" }),
    },
    {
      keys: ["2", "ArrowRight"],
      label: t("vote.second"),
      run: () => onAnswer({ choice: "second" }),
    },
    { keys: ["0"], label: t("vote.tie"), run: () => onAnswer({ choice: "tie" }) },
    {
      keys: ["x"],
      label: t("vote.both_bad"),
      run: () => onAnswer({ choice: "both_bad" }),
    },
  ]);
  return (
    <>
      <div class="pair">
        {item.candidates.map((candidate, side) => (
          <article key={side} class="side">
            <header>
              <span class="side-name">{side === 0 ? t("compare.first") : t("compare.second")}</span>
            </header>
            <Text text={candidate.text} />
          </article>
        ))}
      </div>
      <Votes ready vote={null} onChoose={(choice) => onAnswer({ choice })} />
    </>
  );
}

function RateTask({ item, onAnswer }: TaskProps) {
  const scale = { low: 1, high: 5 };
  const rate = (value: number) => onAnswer({ value });
  useKeys([
    { keys: ["1", "2", "3", "4", "5"], label: t("keys.stars"), run: (event) => rate(Number(event.key)) },
  ]);
  return (
    <>
      <article class="side">
        <Text text={item.candidates[0]?.text ?? ""} />
      </article>
      <div class="row center rate-row">
        <StarRow value={null} scale={scale} label={word("criterion", item.criterion)} onPick={rate} />
        <Key>1</Key>
        <span class="dash">–</span>
        <Key>5</Key>
      </div>
    </>
  );
}

function EditTask({ item, onAnswer }: TaskProps) {
  const before = item.candidates[0]?.text ?? "";
  const editing = useSignal(false);
  useKeys([{ keys: ["e"], label: t("edit"), run: () => (editing.value = true) }]);
  if (editing.value)
    return (
      <Editor
        name={item.assignment_id}
        before={before}
        onCancel={() => (editing.value = false)}
        onSave={(corrected) => onAnswer({ corrected })}
      />
    );
  return (
    <>
      <article class="side">
        <Text text={before} />
      </article>
      <div class="row center">
        <button type="button" class="primary" onClick={() => (editing.value = true)}>
          <Icon name="edit" size={18} /> {t("edit")} <Key>e</Key>
        </button>
        <button type="button" class="quiet" onClick={() => onAnswer({ corrected: before })}>
          {t("queue.nothing_wrong")}
        </button>
      </div>
    </>
  );
}
