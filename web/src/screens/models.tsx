import { get } from "../lib/api";
import type { ModelVersion } from "../lib/contract";
import { compact, dateTime, number, t, word } from "../lib/i18n";
import { model } from "../lib/session";
import { copy, Empty, Head, IconButton, Loaded, useLoad } from "../parts/basics";

/** The versions of the model, newest first, and what each was found to be. */
export function Models() {
  const found = useLoad(() => get<{ items: ModelVersion[] }>("/api/models"), [model.value?.weight_version]);
  return (
    <div class="screen models">
      <Head title={t("models")} lead={t("models.lead")} />
      <Loaded of={found}>
        {({ items }) =>
          items.length ? (
            <ol class="versions">
              {items.map((one) => (
                <Version key={one.version} one={one} />
              ))}
            </ol>
          ) : (
            <Empty title={t("models.empty")} text={t("models.empty_text")} />
          )
        }
      </Loaded>
    </div>
  );
}

function Version({ one }: { one: ModelVersion }) {
  const metrics = Object.entries(one.metrics ?? {});
  return (
    <li class={one.active ? "card model-version active" : "card model-version"}>
      <header>
        <span class="version big">{one.version}</span>
        <div>
          <h2>{one.title}</h2>
          <p class="soft">
            {t("models.parameters", { n: compact(one.parameters) })} · {word("source", one.source)}
            {one.created_at && <time> · {dateTime(one.created_at)}</time>}
          </p>
        </div>
        {one.active && <span class="badge good">{t("models.active")}</span>}
      </header>
      {metrics.length > 0 && (
        <dl class="figures slim">
          {metrics.map(([name, value]) => (
            <div key={name}>
              <dt>{word("metric", name)}</dt>
              <dd>
                {typeof value === "number" ? number(value, Number.isInteger(value) ? 0 : 2) : (value ?? "–")}
              </dd>
            </div>
          ))}
        </dl>
      )}
      {one.digest && (
        <p class="digest soft">
          <code title={one.digest}>{one.digest.slice(0, 20)}</code>
          <IconButton
            icon="copy"
            label={t("models.copy_digest")}
            onClick={() => void copy(one.digest ?? "")}
          />
        </p>
      )}
    </li>
  );
}
