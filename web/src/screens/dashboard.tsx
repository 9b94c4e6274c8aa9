import { useEffect } from "preact/hooks";
import { get } from "../lib/api";
import type { Dashboard as Figures, Numbers, Progress } from "../lib/contract";
import { ago, type Key, number, percent, t, word } from "../lib/i18n";
import { givenToday } from "../lib/judgments";
import { learner, policy } from "../lib/policy";
import { model } from "../lib/session";
import { Head, Loaded, useLoad } from "../parts/basics";
import { Chart, type ChartData, Interval, secondsOf } from "../parts/chart";
import { Icon } from "../parts/icon";
import { Town } from "../parts/town";

const REFRESH_MS = 15_000;
const TONES = ["blue", "orange", "accent", "plum", "soft"];

export function Dashboard() {
  const figures = useLoad(() => get<Figures>("/api/dashboard"), [policy.value]);
  useEffect(() => {
    const clock = setInterval(() => document.hidden || void figures.reload(), REFRESH_MS);
    return () => clearInterval(clock);
  }, []);
  return (
    <div class="screen dashboard">
      <Head title={t("dashboard")} lead={t("dashboard.lead")} />
      <Loaded of={figures} lines={8}>
        {(found) => <Board found={found} />}
      </Loaded>
    </div>
  );
}

function Board({ found }: { found: Figures }) {
  const { totals, series, win_rate, alarms } = found;
  return (
    <>
      {alarms.map((alarm) => (
        <p key={alarm.id} class={`alarm ${alarm.severity}`} role="alert">
          <Icon name="alarm" /> <span>{alarm.text}</span> <time class="soft">{ago(alarm.since)}</time>
        </p>
      ))}
      <section class="hero card">
        <dl class="figures">
          {(["feedback", "completions", "conversations", "people"] as const).map((name) => (
            <div key={name}>
              <dt>{t(`total.${name}`)}</dt>
              <dd>{number(totals[name])}</dd>
            </div>
          ))}
        </dl>
        <Town lit={Math.max(givenToday.value, Math.min(40, Math.round(totals.feedback ** 0.55)))} />
      </section>
      <Pipeline pipeline={found.pipeline} />
      <section class="card learning">
        <h2>{t("learning")}</h2>
        <Doing paused={found.paused ?? null} progress={learner.value ?? found.learner ?? null} />
        {win_rate ? (
          <p class="win-rate">
            <b>{percent(win_rate.value)}</b>{" "}
            <Interval value={win_rate.value} low={win_rate.low} high={win_rate.high} />{" "}
            {t("learning.win_rate", { low: percent(win_rate.low), high: percent(win_rate.high) })}
          </p>
        ) : (
          <p class="soft">{t("learning.not_yet", { version: model.value?.weight_version ?? "v0" })}</p>
        )}
      </section>
      <div class="charts">
        <Chart
          title={t("chart.feedback")}
          unit={perWhat(series.feedback_by_kind?.t)}
          data={kinds(series.feedback_by_kind)}
        />
        <Chart title={t("chart.reward")} data={banded(series.reward, t("chart.reward"), "blue")} />
        <Chart
          title={t("chart.rating")}
          unit={t("chart.share")}
          data={banded(series.rating_mean, t("chart.rating"), "accent")}
        />
        <Chart title={t("chart.latency")} unit={t("chart.ms")} data={latency(series.latency)} />
        <Chart
          title={t("chart.length")}
          unit={t("chart.characters")}
          data={
            series.length
              ? {
                  t: series.length.t,
                  curves: [{ label: t("chart.length"), values: series.length.mean, tone: "blue" }],
                }
              : null
          }
        />
      </div>
      {found.versions && <VersionCurves of={found.versions} />}
    </>
  );
}

/** What the learner is doing now, or why it rests. */
function Doing({ paused, progress }: { paused: Figures["paused"]; progress: Progress | null }) {
  if (paused)
    return (
      <p class="doing">
        <span class="badge warn">{t("learning.paused")}</span> {word("pause", paused.reason)}{" "}
        <time class="soft">{ago(paused.since)}</time>
      </p>
    );
  if (!progress) return null;
  const { phase, iteration, of, because, judgments, at } = progress;
  return (
    <p class="doing" aria-live="polite">
      <span class="badge good">{word("phase", phase)}</span>
      {iteration !== undefined && of !== undefined && (
        <span>{t("learning.iteration", { iteration, of })}</span>
      )}
      {because && <span>{word("because", because)}</span>}
      {judgments !== undefined && <span class="soft">{t("learning.judgments", { n: judgments })}</span>}
      {at && <time class="soft">{ago(at)}</time>}
    </p>
  );
}

type VersionFigures = NonNullable<Figures["versions"]>;

// Title, unit, and which figures of docs/metrics.md it shows; the first one with an interval where there is one.
const VERSION_CHARTS: [Key, Key | null, string[]][] = [
  ["chart.win_rate", "chart.against_start", ["held_out/win_rate"]],
  ["chart.kl", "chart.nats", ["policy/kl"]],
  ["chart.proxy", "chart.sd", ["held_out/proxy", "reward/score"]],
  ["chart.judge", null, ["held_out/reward"]],
  ["chart.version_length", "chart.characters", ["text/length"]],
  ["chart.foresight", null, ["potential/explained_variance", "potential/gae_lambda"]],
  ["chart.entropy", "chart.nats_token", ["policy/entropy"]],
  ["chart.defects", "chart.shares", ["held_out/wrong_facts", "held_out/topic_drift", "held_out/rudeness"]],
];

function VersionCurves({ of }: { of: VersionFigures }) {
  const charts = VERSION_CHARTS.map(([title, unit, names]) => ({
    title,
    unit,
    data: versionData(of, names),
  }));
  const drawn = charts.filter(({ data }) => data !== null);
  if (!drawn.length) return null;
  return (
    <section class="by-version" aria-label={t("learning.by_version")}>
      <h2>{t("learning.by_version")}</h2>
      <div class="charts">
        {drawn.map(({ title, unit, data }) => (
          <Chart key={title} title={t(title)} data={data} {...(unit && { unit: t(unit) })} />
        ))}
      </div>
    </section>
  );
}

function versionData({ version, metrics }: VersionFigures, names: string[]): ChartData | null {
  const known = names.filter((name) => metrics[name]);
  if (!known.length) return null;
  const [low, high] = ["low", "high"].map((end) => metrics[`${known[0]}_${end}`]);
  return {
    t: version,
    versions: true,
    curves: known.map((name, at) => ({
      label: word("figure", name),
      values: metrics[name]!,
      tone: TONES[at]!,
      ...(at > 0 && { dash: [7 - at, at + 1] }),
    })),
    ...(low && high && { band: { low, high, tone: TONES[0]! } }),
  };
}

function Pipeline({ pipeline }: { pipeline: Figures["pipeline"] }) {
  const stages = ["saved", "settled", "learned", "live"] as const;
  return (
    <section class="card pipeline" aria-label={t("pipeline")}>
      <ol>
        {stages.map((stage) => (
          <li key={stage} class={pipeline[stage] > 0 ? "done" : ""}>
            <b>{number(pipeline[stage])}</b>
            <span>{t(`pipeline.${stage}`)}</span>
          </li>
        ))}
      </ol>
      <p class="soft">
        {pipeline.lag_s === null ? t("pipeline.no_lag") : t("pipeline.lag", { s: number(pipeline.lag_s, 1) })}
      </p>
    </section>
  );
}

type Series = Figures["series"];

function kinds(series: Series["feedback_by_kind"]): ChartData | null {
  if (!series) return null;
  const busiest = Object.entries(series.kinds)
    .map(([kind, values]) => ({
      kind,
      values,
      sum: values.reduce<number>((sum, value) => sum + (value ?? 0), 0),
    }))
    .filter(({ sum }) => sum > 0)
    .sort((a, b) => b.sum - a.sum)
    .slice(0, TONES.length);
  return {
    t: series.t,
    curves: busiest.map(({ kind, values }, index) => ({
      label: word("kind", kind),
      values,
      tone: TONES[index]!,
      ...(index > 0 && { dash: [7 - index, index + 1] }),
    })),
  };
}

const banded = (series: Series["reward"], label: string, tone: string): ChartData | null =>
  series
    ? {
        t: series.t,
        curves: [{ label, values: series.mean, tone }],
        band: { low: series.low, high: series.high, tone },
      }
    : null;

const milliseconds = (values: Numbers): Numbers => values.map((value) => value && value * 1000);

/** What one point of a curve stands for: an hour while all is young, a day later. */
function perWhat(times: (number | string)[] | undefined): string {
  const [first, second] = (times ?? []).map(secondsOf);
  return first !== undefined && second !== undefined && second - first < 86_400
    ? t("chart.per_hour")
    : t("chart.per_day");
}

const latency = (series: Series["latency"]): ChartData | null =>
  series
    ? {
        t: series.t,
        curves: [
          { label: t("chart.p50"), values: milliseconds(series.ttft_p50), tone: "blue" },
          { label: t("chart.p95"), values: milliseconds(series.ttft_p95), tone: "orange", dash: [6, 4] },
        ],
      }
    : null;
