// Where people judged the same question differently: what each said, beside the answers, and a verdict.
import { useSignal } from "@preact/signals";
import { get, query } from "../lib/api";
import type { Disagreement, Disagreements as Found, QueueAnswer, SaidOfItem } from "../lib/contract";
import { ago, dateTime, t, word } from "../lib/i18n";
import { decideDisagreement } from "../lib/judgments";
import { useKeys } from "../lib/keys";
import { announce, complain, notify } from "../lib/notices";
import { Empty, Head, IconButton, Loaded, Segments, useLoad } from "../parts/basics";
import { Icon } from "../parts/icon";
import { WordDiff } from "../parts/opinion";
import { Prompt, Task } from "./assignment";

export function Disagreements() {
  const decided = useSignal(false);
  const at = useSignal(0);
  const list = useLoad(
    () => get<Found>(`/api/queue/disagreements${query({ decided: String(decided.value) })}`),
    [decided.value],
  );
  const items = list.data.value?.items ?? [];
  const shown = Math.min(at.value, items.length - 1);
  const step = (by: number) => {
    if (items.length < 2) return;
    at.value = (shown + by + items.length) % items.length;
    announce(t("disagreements.place", { n: at.value + 1, of: items.length }));
  };
  const decide = (item: Disagreement, answer: QueueAnswer) => {
    // Out of sight at once: nobody should decide the same twice while the line is down.
    const found = list.data.value!;
    const left = found.items.filter((other) => other !== item);
    list.data.value = decided.value
      ? found
      : { items: left, open: found.open - 1, decided: found.decided + 1 };
    void decideDisagreement(item.id, answer).then(() => {
      notify(t("disagreements.done"), "good");
      void list.reload();
    }, complain);
  };
  useKeys([
    { keys: ["j"], label: t("disagreements.next"), run: () => step(1) },
    { keys: ["k"], label: t("disagreements.previous"), run: () => step(-1) },
  ]);
  return (
    <div class="screen queue">
      <Head title={t("disagreements")} lead={t("disagreements.lead")}>
        <a class="button quiet" href="/queue" data-link>
          <Icon name="left" size={18} /> {t("queue")}
        </a>
      </Head>
      <Loaded of={list}>
        {(found) => (
          <>
            <div class="row between wrap disagreement-bar">
              <Segments
                label={t("disagreements")}
                value={decided.value ? 1 : 0}
                choices={[
                  [0, t("disagreements.open", { n: found.open })],
                  [1, t("disagreements.decided", { n: found.decided })],
                ]}
                onChange={(value) => {
                  list.data.value = null;
                  decided.value = value === 1;
                  at.value = 0;
                }}
              />
              {items.length > 1 && (
                <span class="alternatives">
                  <IconButton
                    icon="left"
                    label={t("disagreements.previous")}
                    keyName="k"
                    onClick={() => step(-1)}
                  />
                  <span>{t("disagreements.place", { n: shown + 1, of: items.length })}</span>
                  <IconButton
                    icon="right"
                    label={t("disagreements.next")}
                    keyName="j"
                    onClick={() => step(1)}
                  />
                </span>
              )}
            </div>
            {items[shown] ? (
              <Item
                key={items[shown].id + items[shown].verdict?.at}
                item={items[shown]}
                onDecide={(answer) => decide(items[shown]!, answer)}
              />
            ) : (
              <Empty
                title={t(decided.value ? "disagreements.none_decided" : "disagreements.none")}
                text={t("disagreements.none_text")}
                lit={found.decided}
              />
            )}
          </>
        )}
      </Loaded>
    </div>
  );
}

type ItemProps = { item: Disagreement; onDecide: (answer: QueueAnswer) => void };

function Item({ item, onDecide }: ItemProps) {
  const { verdict } = item;
  const text = item.candidates[0]!.text;
  return (
    <div class="assignment disagreement">
      <div class="assignment-main">
        <Prompt prompt={item.prompt} />
        <Task
          item={{ ...item, assignment_id: item.id, guidelines: "", lease_expires_at: "", remaining: 0 }}
          onAnswer={onDecide}
        />
      </div>
      <aside class="guidelines opinions" aria-label={t("disagreements.said")}>
        <p class="eyebrow">
          {word("task", item.task)} · {word("criterion", item.criterion)}
        </p>
        <h2>{t("disagreements.said")}</h2>
        <ul>
          {item.judgments.map((said) => (
            <li key={said.annotator.id}>
              <b>{said.annotator.name}</b>
              <Opinion said={said} text={text} />
              {said.corrected !== undefined && said.corrected !== text && (
                <button type="button" class="quiet" onClick={() => onDecide({ corrected: said.corrected! })}>
                  {t("disagreements.take")}
                </button>
              )}
            </li>
          ))}
        </ul>
        {verdict && (
          <div class="verdict">
            <p>
              <Icon name="check" size={16} /> {t("disagreements.verdict", { who: verdict.annotator.name })}
              {" · "}
              <time title={dateTime(verdict.at)}>{ago(verdict.at)}</time>
            </p>
            <Opinion said={verdict} text={text} />
          </div>
        )}
      </aside>
    </div>
  );
}

function Opinion({ said, text }: { said: SaidOfItem; text: string }) {
  return (
    <>
      {said.choice && <p>{t(`vote.${said.choice}`)}</p>}
      {said.value !== undefined && <p>{t("stars.of", { n: said.value, high: 5 })}</p>}
      {said.corrected !== undefined &&
        (said.corrected === text ? (
          <p>{t("queue.nothing_wrong")}</p>
        ) : (
          <WordDiff before={text} after={said.corrected} />
        ))}
      {said.comment && <p class="soft plain-text">“{said.comment}”</p>}
    </>
  );
}
