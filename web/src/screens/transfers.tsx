// Feedback out of the house and into it, as files.
import { useSignal } from "@preact/signals";
import { call, post, query } from "../lib/api";
import { t } from "../lib/i18n";
import { complain } from "../lib/notices";
import { Field } from "../parts/basics";
import { Dialog } from "../parts/dialog";
import { Icon } from "../parts/icon";

const LAYOUTS = [
  "rewardloop",
  "trl-preference",
  "trl-unpaired",
  "trl-prompt-completion",
  "trl-stepwise",
  "hh",
  "argilla",
  "label-studio",
  "open-webui",
];

type Made = { id: string; rows: number; sha256: string; url?: string };

export function Export({ onClose, kind }: { onClose: () => void; kind: string }) {
  const layout = useSignal("rewardloop");
  const format = useSignal("jsonl");
  const made = useSignal<Made | null>(null);
  const make = (event: Event) => {
    event.preventDefault();
    void post<Made>("/api/exports", {
      layout: layout.value,
      format: format.value,
      filter: kind ? { kinds: [kind] } : {},
    }).then((found) => (made.value = found), complain);
  };
  return (
    <Dialog title={t("data.export")} onClose={onClose}>
      <form class="stack" onSubmit={make}>
        <Field label={t("data.layout")}>
          <select value={layout.value} onChange={(event) => (layout.value = event.currentTarget.value)}>
            {LAYOUTS.map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </Field>
        <Field label={t("data.format")}>
          <select value={format.value} onChange={(event) => (format.value = event.currentTarget.value)}>
            <option value="jsonl">JSON Lines</option>
            <option value="parquet">Parquet</option>
          </select>
        </Field>
        {made.value ? (
          <div class="secret">
            <p>{t("data.exported", { n: made.value.rows })}</p>
            <code>sha256 {made.value.sha256}</code>
            <a class="button primary" href={exportAddress(made.value)} download>
              <Icon name="download" size={18} /> {t("data.download")}
            </a>
          </div>
        ) : (
          <div class="row end">
            <button type="submit" class="primary">
              {t("data.export")}
            </button>
          </div>
        )}
      </form>
    </Dialog>
  );
}

// Only our own path is ever followed, whatever the reply says.
const exportAddress = ({ id }: Made) => `/api/exports/${encodeURIComponent(id)}`;

type Read = { read: number; stored: number; skipped: { reason: string; count?: number; line?: number }[] };

// What the gateway reads; the end of a file's name says which it is.
const SUFFIXES = ["jsonl", "json", "csv", "tsv", "parquet"];

const suffixOf = (name: string): string => {
  const end = name.split(".").at(-1)?.toLowerCase() ?? "";
  return SUFFIXES.includes(end) ? end : "jsonl";
};

export function Import({ onClose, onDone }: { onClose: () => void; onDone: () => void }) {
  const result = useSignal<Read | null>(null);
  const busy = useSignal(false);
  const layout = useSignal("auto");
  const read = async (file: File | undefined) => {
    if (!file) return;
    busy.value = true;
    try {
      result.value = await call<Read>(
        "POST",
        `/api/imports${query({ layout: layout.value === "auto" ? null : layout.value, suffix: suffixOf(file.name) })}`,
        { raw: file, headers: { "content-type": "application/octet-stream" } },
      );
      onDone();
    } catch (error) {
      complain(error);
    }
    busy.value = false;
  };
  return (
    <Dialog title={t("data.import")} onClose={onClose}>
      <div class="stack">
        <p class="soft">{t("data.import_note")}</p>
        <Field label={t("data.layout")}>
          <select value={layout.value} onChange={(event) => (layout.value = event.currentTarget.value)}>
            {["auto", ...LAYOUTS].map((name) => (
              <option key={name} value={name}>
                {name === "auto" ? t("data.auto") : name}
              </option>
            ))}
          </select>
        </Field>
        <label
          class={busy.value ? "drop busy" : "drop"}
          onDragOver={(event) => event.preventDefault()}
          onDrop={(event) => {
            event.preventDefault();
            void read(event.dataTransfer?.files[0]);
          }}
        >
          <Icon name="upload" size={28} />
          <span>{busy.value ? t("loading") : t("data.drop")}</span>
          <input
            type="file"
            accept={SUFFIXES.map((suffix) => `.${suffix}`).join(",")}
            onChange={(event) => void read(event.currentTarget.files?.[0])}
          />
        </label>
        {result.value && (
          <div role="status">
            <p>{t("data.imported", { n: result.value.stored, read: result.value.read })}</p>
            {result.value.skipped.length > 0 && (
              <details>
                <summary>
                  {t("data.skipped", {
                    n: result.value.skipped.reduce((sum, { count }) => sum + (count ?? 1), 0),
                  })}
                </summary>
                <ul class="list">
                  {result.value.skipped.slice(0, 100).map(({ line, reason, count }) => (
                    <li key={`${line} ${reason}`}>
                      {line ? `${t("data.line", { n: line })}: ${reason}` : `${count ?? 1} × ${reason}`}
                    </li>
                  ))}
                </ul>
              </details>
            )}
          </div>
        )}
      </div>
    </Dialog>
  );
}
