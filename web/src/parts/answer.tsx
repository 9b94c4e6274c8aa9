// An answer with everything that can be said about it.
import { useSignal } from "@preact/signals";
import type { ComponentProps } from "preact";
import { useEffect } from "preact/hooks";
import type { FeedbackBody, Target } from "../lib/contract";
import { type Answer, isRunning, textOf } from "../lib/generation";
import { t, word } from "../lib/i18n";
import { addressOf, lastOf, saidAbout, say, takeBack } from "../lib/judgments";
import { markdown } from "../lib/markdown";
import { announce, complain } from "../lib/notices";
import { learnScale, tinting } from "../lib/rewards";
import { splitSentences } from "../lib/sentences";
import { may, seesRewards } from "../lib/session";
import { IconButton } from "./basics";
import { Ask } from "./dialog";
import { Icon } from "./icon";
import { Markable } from "./marking";
import { CriteriaStars, Editor, Remark, Thumbs, WordDiff } from "./opinion";
import { Strip } from "./strip";
import { Tokens } from "./tokens";

export const targetOf = (answer: Answer): Target | null =>
  answer.completionId.value ? { completion_id: answer.completionId.value, choice: answer.choice } : null;

/** The words of an answer: tinted tokens, or Markdown, or plain text that a base model continued. */
export function AnswerText({ answer, tinted, plain }: { answer: Answer; tinted: boolean; plain?: boolean }) {
  useReadOut(answer);
  const running = isRunning(answer);
  if (answer.phase.value === "waiting") return <Thinking />;
  const hasRewards = answer.tokens.value.some((token) => token.reward != null);
  if (tinted && hasRewards) return <Tokens tokens={answer.tokens.value} tinted caret={running} />;
  const text = textOf(answer);
  if (plain) return <Tokens tokens={answer.tokens.value} tinted={false} caret={running} />;
  return (
    <div
      class={running ? "markdown running" : "markdown"}
      dangerouslySetInnerHTML={{ __html: markdown(text) }}
    />
  );
}

const Thinking = () => (
  <div class="thinking" role="status" aria-label={t("answer.waiting")}>
    <i />
    <i />
    <i />
  </div>
);

/** Reads the text out by the sentence, and lets the scale of colors learn when the answer is whole. */
function useReadOut(answer: Answer): void {
  const read = useSignal(0);
  const text = textOf(answer);
  const phase = answer.phase.value;
  const live = useSignal(phase === "waiting");
  useEffect(() => {
    if (!live.value) return;
    const rest = text.slice(read.value);
    const [sentences, remains] = phase === "streaming" ? splitSentences(rest) : [[rest.trim()], ""];
    if (!sentences.some(Boolean)) return;
    read.value = text.length - remains.length;
    announce(sentences.join(" "));
  }, [text, phase]);
  useEffect(() => {
    if (phase === "done" || phase === "cancelled") learnScale(answer.tokens.value);
  }, [phase]);
}

type Doing = "nothing" | "editing" | "remarking" | "marking" | "flagging";
type Props = {
  answer: Answer;
  plain?: boolean;
  onAgain?: () => void;
  onSay?: (text: string) => void;
  alternatives?: { shown: number; count: number; show: (index: number) => void };
};

export function AnswerCard({ answer, plain, onAgain, onSay, alternatives }: Props) {
  const doing = useSignal<Doing>("nothing");
  const target = targetOf(answer);
  const text = textOf(answer);
  const edit = target && lastOf(target, (body) => body.kind === "edit");
  const stop = () => (doing.value = "nothing");
  const send = (judgment: Parameters<typeof say>[1]) => {
    stop();
    if (target) void say(target, judgment).catch(complain);
  };
  return (
    <article class="answer" data-phase={answer.phase.value}>
      {doing.value === "editing" && target ? (
        <Editor
          name={addressOf(target)}
          before={text}
          onCancel={stop}
          onSave={(corrected) => send({ kind: "edit", corrected })}
        />
      ) : (
        <div class="answer-text">
          {edit?.body.kind === "edit" ? (
            <Corrected
              before={text}
              after={edit.body.corrected}
              undo={() => void takeBack(edit).catch(complain)}
            />
          ) : (
            <Shown
              target={isRunning(answer) ? null : target}
              text={text}
              byKeys={doing.value === "marking"}
              onEnd={() => doing.value === "marking" && stop()}
            >
              <AnswerText answer={answer} tinted={seesRewards.value && tinting.value} plain={plain} />
            </Shown>
          )}
        </div>
      )}
      {answer.phase.value === "failed" && <Failed why={answer.error.value} onAgain={onAgain} />}
      {answer.phase.value === "cancelled" && <p class="answer-note">{t("answer.cancelled")}</p>}
      {answer.finishReason.value === "length" && !plain && <p class="answer-note">{t("answer.length")}</p>}
      {target && may("annotator") && !isRunning(answer) && answer.phase.value !== "failed" && (
        <footer class="answer-bar">
          <Thumbs target={target} />
          <CriteriaStars target={target} />
          <span class="bar-gap" />
          <IconButton
            icon="edit"
            label={t("edit")}
            keyName="e"
            pressed={doing.value === "editing"}
            onClick={() => (doing.value = "editing")}
          />
          <IconButton
            icon="remark"
            label={t("remark")}
            keyName="m"
            pressed={doing.value === "remarking"}
            onClick={() => (doing.value = doing.value === "remarking" ? "nothing" : "remarking")}
          />
          {!edit && (
            <IconButton
              icon="mark"
              label={t("mark")}
              keyName="p"
              pressed={doing.value === "marking"}
              onClick={() => (doing.value = "marking")}
            />
          )}
          <IconButton
            icon="flag"
            label={t("flag")}
            keyName="f"
            pressed={!!lastOf(target, (body) => body.kind === "flag")}
            onClick={() => (doing.value = "flagging")}
          />
          {onAgain && <IconButton icon="again" label={t("answer.again")} keyName="a" onClick={onAgain} />}
          {alternatives && alternatives.count > 1 && <Alternatives {...alternatives} />}
        </footer>
      )}
      {doing.value === "remarking" && target && (
        <Remark
          name={addressOf(target)}
          onCancel={stop}
          onSave={(said) => send({ kind: "comment", text: said })}
          onRetry={
            onSay &&
            ((said) => {
              send({ kind: "dialogue", reply: said });
              onSay(said);
            })
          }
        />
      )}
      {doing.value === "flagging" && (
        <Ask
          title={t("flag.title")}
          label={t("reason")}
          action={t("flag")}
          bad
          choices={FLAGS.map((name) => word("flag", name))}
          onAnswer={(reason) => send({ kind: "flag", reason })}
          onClose={stop}
        />
      )}
      {target && <Remarks target={target} text={text} />}
      {target && !isRunning(answer) && (
        <p class="answer-foot">
          <Strip address={addressOf(target)} />
          {answer.version.value && <span class="version">{answer.version.value}</span>}
        </p>
      )}
    </article>
  );
}

const Shown = ({
  target,
  ...props
}: Omit<ComponentProps<typeof Markable>, "target"> & { target: Target | null }) =>
  target ? <Markable target={target} {...props} /> : <>{props.children}</>;

const FLAGS = ["false", "rude", "harmful", "private"];

function Corrected({ before, after, undo }: { before: string; after: string; undo: () => void }) {
  return (
    <>
      <WordDiff before={before} after={after} />
      <p class="answer-note">
        {t("edit.yours")}{" "}
        <button type="button" class="link" onClick={undo}>
          {t("edit.undo")}
        </button>
      </p>
    </>
  );
}

const REMARKED = ["comment", "flag", "span"];

function remarkText(body: FeedbackBody, text: string): string {
  if (body.kind === "span")
    return `“${[...text].slice(body.start, body.end).join("")}” ${word("category", body.category)}`;
  return body.kind === "comment" ? body.text : body.kind === "flag" ? body.reason : "";
}

function Remarks({ target, text }: { target: Target; text: string }) {
  const remarks = saidAbout(target).filter(
    (one) => REMARKED.includes(one.body.kind) && one.status !== "retracted",
  );
  if (!remarks.length) return null;
  return (
    <ul class="remarks">
      {remarks.map((one) => (
        <li key={one.key}>
          <Icon name={one.body.kind === "flag" ? "flag" : "remark"} size={16} />
          <span>{remarkText(one.body, text)}</span>
          <IconButton
            icon="close"
            label={t("take_back")}
            onClick={() => void takeBack(one).catch(complain)}
          />
        </li>
      ))}
    </ul>
  );
}

const Failed = ({ why, onAgain }: { why: string | null; onAgain?: (() => void) | undefined }) => (
  <p class="answer-failed" role="alert">
    <Icon name="alarm" size={16} /> {t("answer.failed")} {why}{" "}
    {onAgain && (
      <button type="button" class="link" onClick={onAgain}>
        {t("again")}
      </button>
    )}
  </p>
);

const Alternatives = ({
  shown,
  count,
  show,
}: {
  shown: number;
  count: number;
  show: (index: number) => void;
}) => (
  <span class="alternatives">
    <IconButton
      icon="left"
      label={t("answer.previous")}
      disabled={shown === 0}
      onClick={() => show(shown - 1)}
    />
    <span aria-live="polite">
      {shown + 1}/{count}
    </span>
    <IconButton
      icon="right"
      label={t("answer.next")}
      disabled={shown === count - 1}
      onClick={() => show(shown + 1)}
    />
  </span>
);
