import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { get, post, query, remove } from "../lib/api";
import type { DataRow, Message } from "../lib/contract";
import { ago, dateTime, number, t, word } from "../lib/i18n";
import { complain, notify } from "../lib/notices";
import { may } from "../lib/session";
import { Empty, Head, Search, Skeleton, Trouble } from "../parts/basics";
import { Ask, Dialog } from "../parts/dialog";
import { Icon } from "../parts/icon";
import { WordDiff } from "../parts/opinion";
import { Export, Import } from "./transfers";

const KINDS = ["rating", "preference", "ranking", "edit", "comment", "dialogue", "live", "span", "flag"];
const PAGE = 50;
const WAIT_MS = 250;

export function Data() {
  const search = useSignal("");
  const kind = useSignal("");
  const rows = useSignal<DataRow[] | null>(null);
  const next = useSignal<number | null>(null);
  const error = useSignal<unknown>(null);
  const opened = useSignal<DataRow | null>(null);
  const doing = useSignal<"nothing" | "export" | "import">("nothing");
  const erasing = useSignal<{ id: string; name: string } | null>(null);
  const load = async (after: number | null) => {
    try {
      const found = await get<{ items: DataRow[]; next: number | null }>(
        `/api/data${query({ q: search.value.trim(), kind: kind.value, after, limit: PAGE })}`,
      );
      rows.value = after === null ? found.items : [...(rows.value ?? []), ...found.items];
      next.value = found.next;
      error.value = null;
    } catch (cause) {
      error.value = cause;
    }
  };
  useEffect(() => {
    const timer = setTimeout(() => void load(null), rows.value ? WAIT_MS : 0);
    return () => clearTimeout(timer);
  }, [search.value, kind.value]);
  const filtered = search.value.trim() !== "" || kind.value !== "";
  return (
    <div class="screen data">
      <Head title={t("data")} lead={t("data.lead")}>
        {may("manager") && (
          <>
            <button type="button" class="quiet" onClick={() => (doing.value = "import")}>
              <Icon name="upload" size={18} /> {t("data.import")}
            </button>
            <button type="button" class="quiet" onClick={() => (doing.value = "export")}>
              <Icon name="download" size={18} /> {t("data.export")}
            </button>
          </>
        )}
      </Head>
      <div class="filters">
        <Search label={t("data.search")} text={search} />
        <select
          aria-label={t("data.kind")}
          value={kind.value}
          onChange={(event) => (kind.value = event.currentTarget.value)}
        >
          <option value="">{t("data.all_kinds")}</option>
          {KINDS.map((name) => (
            <option key={name} value={name}>
              {word("kind", name)}
            </option>
          ))}
        </select>
      </div>
      {error.value ? (
        <Trouble error={error.value} retry={() => void load(null)} />
      ) : rows.value === null ? (
        <Skeleton lines={8} />
      ) : rows.value.length === 0 ? (
        <Empty
          title={filtered ? t("data.none") : t("data.empty")}
          text={filtered ? t("data.none_text") : t("data.empty_text")}
        />
      ) : (
        <>
          <ul class="rows">
            {rows.value.map((row) => (
              <li key={row.seq}>
                <button type="button" onClick={() => (opened.value = row)}>
                  <span class={`kind kind-${row.kind}`}>{word("kind", row.kind)}</span>
                  <span class="row-summary">{row.summary}</span>
                  <span class="row-prompt soft">{promptText(row.prompt)}</span>
                  <span class="row-who soft">
                    {who(row)} · <time title={dateTime(row.at)}>{ago(row.at)}</time>
                  </span>
                </button>
              </li>
            ))}
          </ul>
          {next.value !== null && (
            <div class="row center">
              <button type="button" class="quiet" onClick={() => void load(next.value)}>
                {t("data.more")}
              </button>
            </div>
          )}
        </>
      )}
      {opened.value && (
        <Details
          row={opened.value}
          onClose={() => (opened.value = null)}
          onErase={(person) => {
            opened.value = null;
            erasing.value = person;
          }}
          onRetract={(row) =>
            void remove(`/v1/feedback/${row.id}`).then(() => {
              opened.value = null;
              notify(t("data.retracted"), "good");
              void load(null);
            }, complain)
          }
        />
      )}
      {doing.value === "export" && <Export onClose={() => (doing.value = "nothing")} kind={kind.value} />}
      {doing.value === "import" && (
        <Import onClose={() => (doing.value = "nothing")} onDone={() => void load(null)} />
      )}
      {erasing.value && (
        <Ask
          title={t("erase.title", { name: erasing.value.name })}
          label={t("erase.confirm", { name: erasing.value.name })}
          action={t("erase")}
          bad
          onClose={() => (erasing.value = null)}
          onAnswer={(typed) => {
            const person = erasing.value!;
            if (typed !== person.name) return notify(t("erase.mismatch"), "bad");
            erasing.value = null;
            void post<{ events: number; completions: number }>("/api/erase", {
              annotator_id: person.id,
            }).then((done) => {
              notify(t("erase.done", { n: done.events }), "good");
              void load(null);
            }, complain);
          }}
        />
      )}
    </div>
  );
}

const promptText = (prompt: DataRow["prompt"]): string =>
  prompt === null
    ? ""
    : typeof prompt === "string"
      ? prompt
      : ((prompt as Message[]).findLast((message) => message.role === "user")?.content ?? "");
const person = (row: DataRow) =>
  typeof row.annotator === "string" ? { id: row.annotator, name: row.annotator } : row.annotator;
const who = (row: DataRow): string => person(row)?.name ?? t("data.nobody");

type DetailsProps = {
  row: DataRow;
  onClose: () => void;
  onErase: (person: { id: string; name: string }) => void;
  onRetract: (row: DataRow) => void;
};

function Details({ row, onClose, onErase, onRetract }: DetailsProps) {
  const corrected = typeof row.body.corrected === "string" ? row.body.corrected : null;
  const annotator = person(row);
  return (
    <Dialog title={`${word("kind", row.kind)} · ${number(row.seq)}`} onClose={onClose} wide>
      <p class="soft">
        {who(row)} · {dateTime(row.at)} · {word("status", row.status)}
      </p>
      {row.prompt !== null && <p class="said">{promptText(row.prompt)}</p>}
      {row.body.kind === "ranking" && row.completions ? (
        <ol class="ranks answer-text">
          {row.completions.map((text, at) => (
            <li key={at}>
              <b>{t("rank.place", { n: (row.body.ranks as number[])[at]! })}</b>
              <p class="plain-text">{text}</p>
            </li>
          ))}
        </ol>
      ) : (
        row.completion !== null && (
          <div class="answer-text">
            {corrected ? (
              <WordDiff before={row.completion} after={corrected} />
            ) : (
              <p class="plain-text">{row.completion}</p>
            )}
          </div>
        )
      )}
      <p class="row-summary">{row.summary}</p>
      <details>
        <summary>{t("data.raw")}</summary>
        <pre>{JSON.stringify(row.body, null, 2)}</pre>
      </details>
      {may("manager") && (
        <div class="row end">
          <button
            type="button"
            class="quiet"
            disabled={row.status === "retracted"}
            onClick={() => onRetract(row)}
          >
            {t("take_back")}
          </button>
          {may("owner") && annotator && (
            <button type="button" class="quiet bad" onClick={() => onErase(annotator)}>
              <Icon name="trash" size={18} /> {t("erase.everything", { name: annotator.name })}
            </button>
          )}
        </div>
      )}
    </Dialog>
  );
}
