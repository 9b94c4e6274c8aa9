// What managers put into the queue.
import { useSignal } from "@preact/signals";
import { get, post, remove } from "../lib/api";
import type { QueueKind, QueueTask } from "../lib/contract";
import { readGold } from "../lib/gold";
import { t, word } from "../lib/i18n";
import { complain, notify } from "../lib/notices";
import { model, settings } from "../lib/session";
import { Field, IconButton, Loaded, Segments, useLoad } from "../parts/basics";

type Source = "world" | "traffic" | "prompts";

export function Tasks({ onChange }: { onChange: () => void }) {
  const tasks = useLoad(() => get<{ items: QueueTask[] }>("/api/queue/tasks"));
  const changed = () => {
    void tasks.reload();
    onChange();
  };
  return (
    <section class="card tasks" aria-label={t("queue.manage")}>
      <NewTask onMade={changed} />
      <Loaded of={tasks} lines={2}>
        {({ items }) =>
          items.length > 0 && (
            <ul class="list">
              {items.map((task) => (
                <li key={task.id}>
                  <span>
                    {word("task", task.task)} · {word("criterion", task.criterion)} ·{" "}
                    {t("queue.overlap_n", { n: task.overlap })}
                  </span>
                  {task.progress && (
                    <span class="soft">
                      {t("queue.judged", { n: task.progress.judged })} ·{" "}
                      {t("queue.ready", { n: task.progress.ready, size: task.progress.size })}
                    </span>
                  )}
                  <IconButton
                    icon="trash"
                    label={t("delete")}
                    onClick={() => void remove(`/api/queue/tasks/${task.id}`).then(changed, complain)}
                  />
                </li>
              ))}
            </ul>
          )
        }
      </Loaded>
    </section>
  );
}

function NewTask({ onMade }: { onMade: () => void }) {
  const task = useSignal<QueueKind>("compare");
  const source = useSignal<Source>(model.value?.builtin ? "world" : "prompts");
  const prompts = useSignal("");
  const overlap = useSignal(3);
  const criterion = useSignal("overall");
  const gold = useSignal(10);
  const table = useSignal("");
  const repeat = useSignal(10);
  const lines = prompts.value.split("\n").filter((line) => line.trim());
  const known = source.value === "world" ? { gold: [], wrong: null } : readGold(table.value);
  const make = (event: Event) => {
    event.preventDefault();
    const from = source.value === "prompts" ? { prompts: lines } : { source: source.value };
    void post("/api/queue/tasks", {
      task: task.value,
      ...from,
      gold: known.gold,
      overlap: overlap.value,
      criterion: criterion.value,
      gold_share: gold.value / 100,
      repeat_share: repeat.value / 100,
    }).then(() => {
      notify(t("queue.made"), "good");
      prompts.value = table.value = "";
      onMade();
    }, complain);
  };
  const sources: [Source, string][] = [
    ["traffic", t("source.traffic")],
    ["prompts", t("source.prompts")],
  ];
  if (model.value?.builtin) sources.unshift(["world", t("source.world")]);
  return (
    <form class="stack" onSubmit={make}>
      <h2>{t("queue.make")}</h2>
      <div class="row wrap">
        <Segments
          label={t("queue.kind")}
          value={task.value}
          choices={[
            ["compare", t("task.compare")],
            ["rate", t("task.rate")],
            ["edit", t("task.edit")],
          ]}
          onChange={(kind) => (task.value = kind)}
        />
        <Segments
          label={t("queue.source")}
          value={source.value}
          choices={sources}
          onChange={(from) => (source.value = from)}
        />
      </div>
      {source.value === "prompts" && (
        <Field label={t("queue.prompts")} note={t("queue.prompts_note")}>
          <textarea
            rows={4}
            value={prompts.value}
            onInput={(event) => (prompts.value = event.currentTarget.value)}
          />
        </Field>
      )}
      <div class="fields">
        <Field label={t("queue.overlap")}>
          <input
            type="number"
            min={1}
            max={7}
            value={overlap.value}
            onInput={(event) => (overlap.value = event.currentTarget.valueAsNumber)}
          />
        </Field>
        <Field label={t("criterion")}>
          <select value={criterion.value} onChange={(event) => (criterion.value = event.currentTarget.value)}>
            {[
              "overall",
              ...(settings.value?.criteria ?? []).map((one) => one.name).filter((name) => name !== "overall"),
            ].map((name) => (
              <option key={name} value={name}>
                {word("criterion", name)}
              </option>
            ))}
          </select>
        </Field>
        <Field label={t("queue.gold")}>
          <input
            type="number"
            min={0}
            max={50}
            value={gold.value}
            onInput={(event) => (gold.value = event.currentTarget.valueAsNumber)}
          />
        </Field>
        <Field label={t("queue.repeat")}>
          <input
            type="number"
            min={0}
            max={50}
            value={repeat.value}
            onInput={(event) => (repeat.value = event.currentTarget.valueAsNumber)}
          />
        </Field>
      </div>
      {source.value !== "world" && gold.value > 0 && (
        <Field label={t("queue.gold_table")} note={t("queue.gold_note")}>
          <textarea
            rows={3}
            value={table.value}
            onInput={(event) => (table.value = event.currentTarget.value)}
          />
        </Field>
      )}
      {known.wrong !== null && (
        <p class="wrong" role="alert">
          {t("queue.gold_wrong", { n: known.wrong })}
        </p>
      )}
      <div class="row end">
        <button
          type="submit"
          class="primary"
          disabled={known.wrong !== null || (source.value === "prompts" && !lines.length)}
        >
          {t("queue.make")}
        </button>
      </div>
    </form>
  );
}
