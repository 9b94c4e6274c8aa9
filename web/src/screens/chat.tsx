import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import {
  again,
  busy,
  type Exchange,
  exchanges,
  loading,
  send,
  show,
  showAlternative,
  stop,
  temperature,
} from "../lib/chat";
import { t } from "../lib/i18n";
import { useKeys } from "../lib/keys";
import { newConversation } from "../lib/navigation";
import { tinting } from "../lib/rewards";
import { segments } from "../lib/router";
import { model, seesRewards, state } from "../lib/session";
import { draft, stored } from "../lib/stored";
import { suggestions, world } from "../lib/world";
import { AnswerCard, targetOf } from "../parts/answer";
import { Skeleton, Switch } from "../parts/basics";
import { Composer, focusComposer } from "../parts/composer";
import { Facts } from "../parts/facts";
import { Icon } from "../parts/icon";
import { rate } from "../parts/opinion";
import { Legend } from "../parts/tokens";
import { Town } from "../parts/town";

const factsOpen = stored<boolean>("facts", false);
// On a small screen the facts lie over the chat: they come when they are asked for, and not by themselves.
if (matchMedia("(max-width: 75rem)").matches) factsOpen.value = false;

export function Chat() {
  const id = segments.value[0] === "chat" ? (segments.value[1] ?? null) : null;
  const text = draft("chat");
  const end = useRef<HTMLDivElement>(null);
  const plain = model.value?.chat === false;
  // Before anything was learned, colors say how usual a word is, and must not look like praise.
  const learned = model.value?.reward_version !== "typicality";
  useEffect(() => void show(id), [id]);
  useFollow(end);
  useChatKeys();
  const list = exchanges.value;
  return (
    <div class={factsOpen.value && world.value ? "chat with-facts" : "chat"}>
      <div class="chat-main">
        <div class="chat-tools">
          {seesRewards.value && (
            <Switch
              label={t(learned ? "chat.tint" : "chat.typicality")}
              hint={learned ? undefined : t("chat.typicality.hint")}
              checked={tinting.value}
              onChange={(on) => (tinting.value = on)}
            />
          )}
          {seesRewards.value && tinting.value && <Legend />}
          <span class="bar-gap" />
          {world.value && (
            <button
              type="button"
              class="quiet"
              aria-expanded={factsOpen.value}
              onClick={() => (factsOpen.value = !factsOpen.value)}
            >
              <Icon name="book" size={18} /> {t("facts")}
            </button>
          )}
        </div>
        <section class={plain ? "thread plain" : "thread"} aria-label={t("chat.thread")}>
          {list.length > 0 && <h1 class="hidden">{t("chat")}</h1>}
          {loading.value && <Skeleton lines={5} />}
          {!list.length && !loading.value && <Welcome onPick={(said) => void send(said)} plain={plain} />}
          {list.map((exchange, index) => (
            <Turn
              key={index}
              exchange={exchange}
              index={index}
              last={index === list.length - 1}
              plain={plain}
            />
          ))}
          <div ref={end} class="thread-end" />
        </section>
        <div class="chat-composer">
          <Composer
            text={text}
            placeholder={plain ? (list.length ? t("chat.continue") : t("chat.begin")) : t("chat.ask")}
            busy={busy.value}
            onStop={stop}
            mayBeEmpty={plain && list.length > 0}
            disabled={state.value?.engine === "down"}
            onSend={(said) => void send(said)}
          >
            <Warmth />
          </Composer>
        </div>
      </div>
      {factsOpen.value && world.value && (
        <Facts world={world.value} onClose={() => (factsOpen.value = false)} />
      )}
    </div>
  );
}

function Turn({
  exchange,
  index,
  last,
  plain,
}: {
  exchange: Exchange;
  index: number;
  last: boolean;
  plain: boolean;
}) {
  const { answers, shown } = exchange;
  const answer = answers[shown];
  return (
    <>
      {exchange.text &&
        (plain ? <p class="prompt-text">{exchange.text}</p> : <p class="said">{exchange.text}</p>)}
      {answer && (
        <AnswerCard
          key={`${index}.${shown}`}
          answer={answer}
          plain={plain}
          {...(last && { onAgain: () => void again(index) })}
          {...(last && !plain && { onSay: (said: string) => void send(said) })}
          alternatives={{ shown, count: answers.length, show: (to) => showAlternative(index, to) }}
        />
      )}
    </>
  );
}

function Welcome({ onPick, plain }: { onPick: (text: string) => void; plain: boolean }) {
  const round = useSignal(Math.floor(Math.random() * 50));
  return (
    <div class="welcome">
      <Town lit={7} />
      <h1>{world.value ? world.value.title : plain ? t("welcome.plain") : t("welcome")}</h1>
      <p class="lead">
        {world.value ? t("welcome.town_lead") : plain ? t("welcome.plain_lead") : t("welcome.lead")}
      </p>
      <ul class="suggestions">
        {suggestions(round.value, 4).map((question) => (
          <li key={question}>
            <button type="button" onClick={() => onPick(question)}>
              {question}
            </button>
          </li>
        ))}
      </ul>
      {world.value && (
        <button type="button" class="link" onClick={() => (round.value += 1)}>
          {t("welcome.others")}
        </button>
      )}
    </div>
  );
}

/** How daring the model is; in words, for a number means little to most. */
function Warmth() {
  const steps = [0, 0.5, 0.8, 1.1];
  const names = [t("warmth.0"), t("warmth.1"), t("warmth.2"), t("warmth.3")];
  return (
    <label class="warmth">
      <span class="hidden">{t("warmth")}</span>
      <select
        value={String(temperature.value)}
        title={t("warmth")}
        onChange={(event) => (temperature.value = Number(event.currentTarget.value))}
      >
        {steps.map((step, index) => (
          <option key={step} value={String(step)}>
            {names[index]}
          </option>
        ))}
      </select>
    </label>
  );
}

/** Keeps the newest words in view, unless the reader has scrolled up. */
function useFollow(end: { current: HTMLDivElement | null }): void {
  const list = exchanges.value;
  const tokens = list.at(-1)?.answers.at(-1)?.tokens.value.length ?? 0;
  useEffect(() => {
    const page = document.scrollingElement!;
    const near = page.scrollHeight - page.scrollTop - page.clientHeight < 240;
    if (near || tokens < 2) end.current?.scrollIntoView({ block: "end" });
  }, [list, tokens]);
}

function useChatKeys(): void {
  const last = () => exchanges.value.at(-1)?.answers.at(exchanges.value.at(-1)!.shown);
  const target = () => {
    const answer = last();
    return answer && targetOf(answer);
  };
  const press = (name: string) => {
    const cards = document.querySelectorAll(".answer");
    cards[cards.length - 1]?.querySelector<HTMLElement>(`.icon-${name}`)?.closest("button")?.click();
  };
  const vote = (value: number) => {
    const about = target();
    if (about) rate(about, value, { low: 0, high: 1 });
  };
  const stars = (event: KeyboardEvent) => {
    const about = target();
    if (about) rate(about, Number(event.key), { low: 1, high: 5 });
  };
  useKeys([
    { keys: ["n"], label: t("keys.new"), run: newConversation },
    { keys: ["/"], label: t("keys.write"), run: focusComposer },
    { keys: ["t"], label: t("keys.tint"), run: () => (tinting.value = !tinting.value) },
    { keys: ["w"], label: t("keys.facts"), run: () => (factsOpen.value = !factsOpen.value) },
    { keys: ["+", "="], label: t("thumb.up"), run: () => vote(1) },
    { keys: ["-"], label: t("thumb.down"), run: () => vote(0) },
    { keys: ["1", "2", "3", "4", "5"], label: t("keys.stars"), run: stars },
    { keys: ["e"], label: t("edit"), run: () => press("edit") },
    { keys: ["m"], label: t("remark"), run: () => press("remark") },
    { keys: ["p"], label: t("mark"), run: () => press("mark") },
    { keys: ["f"], label: t("flag"), run: () => press("flag") },
    { keys: ["a"], label: t("answer.again"), run: () => press("again") },
    { keys: ["Escape"], label: t("stop"), run: stop },
  ]);
}
