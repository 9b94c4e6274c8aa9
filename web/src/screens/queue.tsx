import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ApiError, get, post } from "../lib/api";
import type { Assignment, Disagreements as Found, QueueAnswer, QueueProgress } from "../lib/contract";
import { number, percent, t, word } from "../lib/i18n";
import { answerAssignment } from "../lib/judgments";
import { useKeys } from "../lib/keys";
import { markdown } from "../lib/markdown";
import { complain, notify } from "../lib/notices";
import { segments } from "../lib/router";
import { may } from "../lib/session";
import { Empty, Head, Key, Skeleton, Trouble, useLoad } from "../parts/basics";
import { Ask } from "../parts/dialog";
import { Icon } from "../parts/icon";
import { Prompt, Task } from "./assignment";
import { Disagreements } from "./disagreements";
import { Tasks } from "./tasks";

const SKIPS = ["unclear", "language", "offensive", "unsure"];

export const Queue = () =>
  segments.value[1] === "disagreements" && may("manager") ? <Disagreements /> : <Work />;

/** One assignment after another, each on a lease. */
function Work() {
  const item = useSignal<Assignment | null>(null);
  const phase = useSignal<"loading" | "working" | "empty" | "trouble">("loading");
  const error = useSignal<unknown>(null);
  const progress = useSignal<QueueProgress | null>(null);
  const skipping = useSignal(false);
  const managing = useSignal(false);

  const take = async (ask: () => Promise<Assignment | null>) => {
    phase.value = "loading";
    try {
      item.value = await ask();
      phase.value = item.value ? "working" : "empty";
    } catch (cause) {
      error.value = cause;
      phase.value = "trouble";
    }
    progress.value = await get<QueueProgress>("/api/queue/progress").catch(() => progress.value);
  };
  const next = () => take(() => post<Assignment | null>("/api/queue/next"));
  useEffect(() => void next(), []);

  const answer = (judgment: QueueAnswer) => {
    const done = item.value;
    if (!done) return;
    item.value = null;
    phase.value = "loading";
    void answerAssignment(done.assignment_id, judgment).catch(complain).then(next);
  };
  const skip = (reason: string) => {
    skipping.value = false;
    const skipped = item.value;
    if (!skipped) return;
    void post(`/api/queue/${skipped.assignment_id}/skip`, { reason }).then(next, complain);
  };
  const undo = () =>
    void take(() => post<Assignment>("/api/queue/undo")).then(() => {
      if (!(error.value instanceof ApiError)) return;
      if (error.value.status === 404 || error.value.status === 409) {
        notify(t("queue.nothing_to_undo"));
        error.value = null;
        void next();
      }
    });
  useKeys([
    { keys: ["s"], label: t("queue.skip"), run: () => (skipping.value = item.value !== null) },
    { keys: ["u"], label: t("queue.undo"), run: undo },
  ]);

  return (
    <div class="screen queue">
      <Head title={t("queue")} lead={t("queue.lead")}>
        {may("manager") && (
          <>
            <ToDecide />
            <button
              type="button"
              class="quiet"
              aria-expanded={managing.value}
              onClick={() => (managing.value = !managing.value)}
            >
              <Icon name="settings" size={18} /> {t("queue.manage")}
            </button>
          </>
        )}
      </Head>
      {managing.value && <Tasks onChange={() => void next()} />}
      {progress.value && <Progress progress={progress.value} />}
      {phase.value === "loading" && <Skeleton lines={6} />}
      {phase.value === "trouble" && <Trouble error={error.value} retry={() => void next()} />}
      {phase.value === "empty" && (
        <Empty
          title={t("queue.empty")}
          text={may("manager") ? t("queue.empty_manager") : t("queue.empty_text")}
          lit={progress.value?.mine.today ?? 3}
        >
          <div class="row center">
            <button type="button" class="quiet" onClick={undo}>
              <Icon name="undo" size={18} /> {t("queue.undo")}
            </button>
            {may("manager") && (
              <button type="button" class="primary" onClick={() => (managing.value = true)}>
                {t("queue.make")}
              </button>
            )}
          </div>
        </Empty>
      )}
      {phase.value === "working" && item.value && (
        <div class="assignment">
          <div class="assignment-main">
            <Prompt prompt={item.value.prompt} />
            <Task key={item.value.assignment_id} item={item.value} onAnswer={answer} />
            <footer class="row between assignment-foot">
              <button type="button" class="quiet" onClick={undo}>
                <Icon name="undo" size={18} /> {t("queue.undo")} <Key>u</Key>
              </button>
              <Lease until={item.value.lease_expires_at} onExpired={() => void next()} />
              <button type="button" class="quiet" onClick={() => (skipping.value = true)}>
                <Icon name="skip" size={18} /> {t("queue.skip")} <Key>s</Key>
              </button>
            </footer>
          </div>
          <aside class="guidelines" aria-label={t("guidelines")}>
            <p class="eyebrow">{word("criterion", item.value.criterion)}</p>
            <h2>{t("guidelines")}</h2>
            {item.value.guidelines ? (
              <div class="markdown" dangerouslySetInnerHTML={{ __html: markdown(item.value.guidelines) }} />
            ) : (
              <p class="soft">{t("guidelines.none")}</p>
            )}
          </aside>
        </div>
      )}
      {skipping.value && (
        <Ask
          title={t("queue.skip_title")}
          label={t("reason")}
          action={t("queue.skip")}
          choices={SKIPS.map((name) => word("skip", name))}
          onAnswer={skip}
          onClose={() => (skipping.value = false)}
        />
      )}
    </div>
  );
}

/** The way to what people disagree about, and how much of it is open. */
function ToDecide() {
  const found = useLoad(() => get<Found>("/api/queue/disagreements?limit=1"));
  const open = found.data.value?.open ?? 0;
  return (
    <a class="button quiet" href="/queue/disagreements" data-link>
      {t("disagreements")} {open > 0 && <span class="badge warn">{number(open)}</span>}
    </a>
  );
}

function Progress({ progress }: { progress: QueueProgress }) {
  const { mine, all, agreement } = progress;
  return (
    <dl class="figures slim">
      <div>
        <dt>{t("queue.today")}</dt>
        <dd>{number(mine.today)}</dd>
      </div>
      <div>
        <dt>{t("queue.mine")}</dt>
        <dd>{number(mine.done)}</dd>
      </div>
      <div class="grow">
        <dt>{t("queue.all", { n: all.overlap })}</dt>
        <dd>
          <progress max={Math.max(1, all.total)} value={all.done} aria-label={t("queue.progress")} />{" "}
          {number(all.done)} / {number(all.total)}
        </dd>
      </div>
      {agreement !== null && (
        <div>
          <dt>{t("agreement")}</dt>
          <dd>{percent(agreement)}</dd>
        </div>
      )}
    </dl>
  );
}

/** How long the assignment is ours; when the lease is over somebody else may have it. */
function Lease({ until, onExpired }: { until: string; onExpired: () => void }) {
  const left = useSignal(Number.POSITIVE_INFINITY);
  useEffect(() => {
    const look = () => {
      left.value = Math.round((new Date(until).getTime() - Date.now()) / 1000);
      if (left.value <= 0) {
        clearInterval(clock);
        notify(t("queue.expired"));
        onExpired();
      }
    };
    const clock = setInterval(look, 5_000);
    look();
    return () => clearInterval(clock);
  }, [until]);
  if (left.value > 120) return <span />;
  return (
    <span class="soft" role="timer">
      {t("queue.lease", { n: Math.max(1, Math.ceil(left.value / 60)) })}
    </span>
  );
}
