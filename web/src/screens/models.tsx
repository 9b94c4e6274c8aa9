import { useSignal, useSignalEffect } from "@preact/signals";
import { get, post } from "../lib/api";
import type { ModelVersion, Versions } from "../lib/contract";
import { compact, dateTime, number, percent, t, word } from "../lib/i18n";
import { complain, notify } from "../lib/notices";
import { policy } from "../lib/policy";
import { may, model } from "../lib/session";
import { copy, Empty, Head, IconButton, Loaded, useLoad } from "../parts/basics";
import { Interval } from "../parts/chart";
import { Ask, Confirm } from "../parts/dialog";
import { Icon } from "../parts/icon";

type Choice = { title: string; text: string; action: string; path: string; body: object; done: string };

/** The versions of the model, newest first, what each was found to be, and which one is in use. */
export function Models() {
  const found = useLoad(() => get<Versions>("/api/models"), [model.value?.weight_version, policy.value]);
  const older = useSignal<Versions | null>(null); // what was asked for beyond the first page
  useSignalEffect(() => {
    if (policy.value) older.value = null; // the first page begins elsewhere now
  });
  const choice = useSignal<Choice | null>(null);
  const pausing = useSignal(false);
  const act = (path: string, body: object, done: string) =>
    void post(path, body).then(() => {
      notify(done, "good");
      void found.reload();
    }, complain);
  const more = (after: number) =>
    void get<Versions>(`/api/models?older_than=${after}`).then((page) => {
      older.value = { ...page, items: [...(older.value?.items ?? []), ...page.items] };
    }, complain);
  const rest = (paused: boolean, reason: string) =>
    act("/api/policy/learning", { paused, reason }, t(paused ? "models.paused_done" : "models.resumed_done"));
  const mayAct = may("manager");
  return (
    <div class="screen models">
      <Head title={t("models")} lead={t("models.lead")}>
        {mayAct && found.data.value && (
          <>
            {found.data.value.before && (
              <button
                type="button"
                class="quiet"
                onClick={() => (choice.value = rollBack(found.data.value!.before!))}
              >
                <Icon name="undo" size={16} /> {t("models.roll_back")}
              </button>
            )}
            <button
              type="button"
              class="quiet"
              onClick={() => {
                if (found.data.value!.paused) rest(false, "");
                else pausing.value = true;
              }}
            >
              {t(found.data.value.paused ? "models.resume" : "models.pause")}
            </button>
          </>
        )}
      </Head>
      <Loaded of={found}>
        {({ items, paused, pause_reason, trouble, engine, next }) => (
          <>
            {engine === "down" && (
              <p class="alarm" role="alert">
                <Icon name="alarm" /> <span>{t("models.engine_down")}</span>
              </p>
            )}
            {trouble && (
              <p class="alarm" role="alert">
                <Icon name="alarm" /> <span>{trouble}</span>
              </p>
            )}
            {paused && (
              <p class="alarm info">
                <Icon name="alarm" />
                <span>
                  {t("learning.paused")}
                  {pause_reason && `: ${word("pause", pause_reason)}`}
                </span>
              </p>
            )}
            {items.length ? (
              <ol class="versions">
                {[...items, ...(older.value?.items ?? [])].map((one) => (
                  <Version
                    key={one.version}
                    one={one}
                    onServe={mayAct ? () => (choice.value = serve(one)) : undefined}
                  />
                ))}
              </ol>
            ) : (
              <Empty title={t("models.empty")} text={t("models.empty_text")} />
            )}
            {(older.value ?? { next }).next != null && (
              <div class="row center after-vote">
                <button type="button" class="quiet" onClick={() => more((older.value ?? { next }).next!)}>
                  {t("models.older")}
                </button>
              </div>
            )}
          </>
        )}
      </Loaded>
      {choice.value && (
        <Confirm
          {...choice.value}
          onClose={() => (choice.value = null)}
          onYes={() => {
            const { path, body, done } = choice.value!;
            choice.value = null;
            act(path, body, done);
          }}
        />
      )}
      {pausing.value && (
        <Ask
          title={t("models.pause_title")}
          label={t("reason")}
          action={t("models.pause")}
          onClose={() => (pausing.value = false)}
          onAnswer={(reason) => {
            pausing.value = false;
            rest(true, reason);
          }}
        />
      )}
    </div>
  );
}

const numberOf = (version: string): number => Number(version.slice(1));

function serve(one: ModelVersion): Choice {
  const version = one.version;
  return {
    title: t("models.serve_title", { version }),
    text: t(one.passed === false ? "models.serve_held" : "models.serve_text"),
    action: t("models.serve"),
    path: "/api/policy/activate",
    body: { version: numberOf(version) },
    done: t("models.served", { version }),
  };
}

function rollBack(version: string): Choice {
  return {
    title: t("models.roll_back_title", { version }),
    text: t("models.serve_text"),
    action: t("models.roll_back"),
    path: "/api/policy/rollback",
    body: {},
    done: t("models.served", { version }),
  };
}

// What is shown of a version, beside its win rate; all of it is at /api/policy.
const SHOWN = [
  "policy/kl",
  "held_out/reward",
  "held_out/proxy",
  "reward/score",
  "text/length",
  "held_out/wrong_facts",
  "held_out/topic_drift",
  "held_out/rudeness",
];

function Version({ one, onServe }: { one: ModelVersion; onServe?: (() => void) | undefined }) {
  const figures = SHOWN.filter((name) => typeof one.metrics[name] === "number");
  const won = winRate(one);
  return (
    <li class={one.active ? "card model-version active" : "card model-version"}>
      <header>
        <span class="version big">{one.version}</span>
        <div>
          <h2>{one.title}</h2>
          <p class="soft">
            {t("models.parameters", { n: compact(one.parameters) })} · {word("source", one.source)}
            {!!one.feedback && <> · {t("learning.judgments", { n: one.feedback })}</>}
            {one.created_at && <time> · {dateTime(one.created_at)}</time>}
          </p>
          <Gate one={one} />
        </div>
        {one.active && <span class="badge good">{t("models.active")}</span>}
        {!one.active && onServe && (one.kept ?? true) && (
          <button type="button" class="quiet" onClick={onServe}>
            {t("models.serve")}
          </button>
        )}
      </header>
      {(won || figures.length > 0) && (
        <dl class="figures slim">
          {won && (
            <div>
              <dt>{word("figure", "held_out/win_rate")}</dt>
              <dd>
                {percent(won.value)} <Interval value={won.value} low={won.low} high={won.high} />
                <small class="soft">
                  {percent(won.low)}–{percent(won.high)}
                </small>
              </dd>
            </div>
          )}
          {figures.map((name) => (
            <div key={name}>
              <dt>{word("figure", name)}</dt>
              <dd>{number(one.metrics[name] as number, 2)}</dd>
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

/** What the gate said: passed, or held and why. */
function Gate({ one }: { one: ModelVersion }) {
  if (one.kept === false) return <span class="badge">{t("models.gone")}</span>;
  if (one.passed == null) return null;
  if (one.passed) return <span class="badge">{t("models.passed")}</span>;
  return (
    <span class="badge warn">
      {t("models.held", { why: (one.reasons ?? []).map((reason) => word("held", reason)).join(", ") })}
    </span>
  );
}

function winRate({ metrics }: ModelVersion): { value: number; low: number; high: number } | null {
  const [value, low, high] = ["", "_low", "_high"].map((end) => metrics[`held_out/win_rate${end}`]);
  return typeof value === "number" && typeof low === "number" && typeof high === "number"
    ? { value, low, high }
    : null;
}
