// Curves over time with uPlot; what they show is also a table for those who do not see it.
import { useEffect, useRef } from "preact/hooks";
import type uPlot from "uplot";
import type { Numbers } from "../lib/contract";
import { compact, language, number, t } from "../lib/i18n";
import { color, theme } from "../lib/theme";

export type Curve = { label: string; values: Numbers; tone: string; dash?: number[]; stepped?: boolean };
export type ChartData = {
  t: (number | string)[];
  versions?: boolean; // `t` are numbers of versions, no times
  curves: Curve[];
  band?: { low: Numbers; high: Numbers; tone: string };
};

/** A time of the gateway, in seconds since 1970. */
export const secondsOf = (time: number | string): number =>
  typeof time === "number" ? (time > 1e11 ? time / 1000 : time) : new Date(time).getTime() / 1000;

function options(data: ChartData, width: number, height: number): uPlot.Options {
  const hair = color("hair");
  const soft = color("soft");
  const axis = {
    stroke: soft,
    grid: { stroke: hair, width: 1 },
    ticks: { show: false },
    font: `11px ${getComputedStyle(document.body).fontFamily}`,
    gap: 6,
  };
  const series: uPlot.Series[] = [
    {},
    ...data.curves.map(
      (curve): uPlot.Series => ({
        label: curve.label,
        stroke: color(curve.tone),
        width: 2,
        ...(curve.dash && { dash: curve.dash }),
        points: { show: data.t.length < 2 },
        spanGaps: true,
      }),
    ),
  ];
  const bands: uPlot.Band[] = [];
  if (data.band) {
    const edge = (label: string): uPlot.Series => ({
      label,
      stroke: "transparent",
      width: 0,
      points: { show: false },
    });
    series.push(edge("high"), edge("low"));
    bands.push({
      series: [series.length - 2, series.length - 1],
      fill: color(data.band.tone).replace("rgb(", "rgba(").replace(")", ", .14)"),
    });
  }
  const only = new Set(data.t).size === 1 ? placesOf(data)[0]! : null;
  const around = data.versions ? 1 : 3600;
  return {
    width,
    height,
    scales: {
      x: {
        time: !data.versions,
        // A point alone stands in the middle; left to itself, the library would stretch a time over a thousand days.
        ...(only !== null && { range: [only - around, only + around] as [number, number] }),
      },
    },
    series,
    bands,
    legend: { show: false },
    cursor: { points: { size: 7 }, drag: { x: false, y: false } },
    padding: [8, 22, 0, 0],
    axes: [
      {
        ...axis,
        grid: { show: false },
        space: 70,
        size: 26,
        ...(data.versions && { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] }),
        ...(only !== null && { splits: () => [only] }),
        values: (_plot, splits) => splits.map(data.versions ? named : clock(splits)),
      },
      {
        ...axis,
        size: 44,
        values: (_plot, splits) => {
          const digits = digitsOf((splits[1] ?? 1) - (splits[0] ?? 0));
          return splits.map((value) => (Math.abs(value) >= 1000 ? compact(value) : number(value, digits)));
        },
      },
    ],
  };
}

/** How many digits tell marks apart that lie `step` from each other. */
const digitsOf = (step: number): number =>
  [0, 1, 2, 3].find((digits) => Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) < 1e-6) ?? 4;

function clock(splits: number[]): (second: number) => string {
  const long = (splits.at(-1) ?? 0) - (splits[0] ?? 0) > 2 * 86_400;
  const format = new Intl.DateTimeFormat(language.value === "zh" ? "zh-CN" : "en", {
    ...((long || splits.length === 1) && { month: "short", day: "numeric" }),
    ...(!long && { hour: "2-digit", minute: "2-digit" }),
  });
  return (second) => format.format(second * 1000);
}

const placesOf = (data: ChartData): number[] => data.t.map(data.versions ? Number : secondsOf);
const named = (version: number): string => `v${version}`;

function draw(Plot: typeof uPlot, around: HTMLElement, data: ChartData, height: number): () => void {
  const values: uPlot.AlignedData = [
    placesOf(data),
    ...data.curves.map((curve) => curve.values),
    ...(data.band ? [data.band.high, data.band.low] : []),
  ];
  const plot = new Plot(options(data, around.clientWidth, height), values, around);
  const watch = new ResizeObserver(
    ([entry]) => entry && plot.setSize({ width: entry.contentRect.width, height }),
  );
  watch.observe(around);
  return () => {
    watch.disconnect();
    plot.destroy();
  };
}

export function Chart({
  title,
  data,
  unit,
  height = 190,
}: {
  title: string;
  data: ChartData | null;
  unit?: string;
  height?: number;
}) {
  const box = useRef<HTMLDivElement>(null);
  const empty = data === null || !data.curves.some((curve) => curve.values.some((value) => value !== null));
  const look = `${theme.value}${matchMedia("(prefers-color-scheme: dark)").matches}${language.value}`;
  useEffect(() => {
    if (empty || !box.current) return;
    const around = box.current;
    let end: (() => void) | null = () => {};
    // Who never opens the dashboard never loads the library that draws it.
    void import("uplot").then(({ default: Plot }) => {
      if (end) end = draw(Plot, around, data, height);
    });
    return () => {
      end?.();
      end = null;
    };
  }, [data, look]);
  return (
    <figure class="chart">
      <figcaption>
        <span>{title}</span>
        {unit && <span class="soft">{unit}</span>}
      </figcaption>
      {empty ? (
        <p class="chart-empty">{t("chart.empty")}</p>
      ) : (
        <>
          <div ref={box} class="plot" aria-hidden="true" />
          {data.curves.length > 1 && (
            <p class="chart-legend">
              {data.curves.map((curve) => (
                <span key={curve.label} class={`key tone-${curve.tone}${curve.dash ? " dashed" : ""}`}>
                  {curve.label}
                </span>
              ))}
            </p>
          )}
          <ChartTable title={title} data={data} />
        </>
      )}
    </figure>
  );
}

const ChartTable = ({ title, data }: { title: string; data: ChartData }) => (
  <table class="hidden">
    <caption>{title}</caption>
    <tbody>
      {data.curves.map((curve) => {
        const values = curve.values.filter((value): value is number => value !== null);
        return (
          <tr key={curve.label}>
            <th scope="row">{curve.label}</th>
            <td>{values.length ? `${number(values[0]!, 2)} → ${number(values.at(-1)!, 2)}` : "–"}</td>
          </tr>
        );
      })}
    </tbody>
  </table>
);

/** Two weeks of counts as small bars. */
export function Sparkline({ values, label }: { values: number[]; label: string }) {
  const most = Math.max(1, ...values);
  return (
    <svg
      class="sparkline"
      viewBox={`0 0 ${values.length * 6} 24`}
      width={values.length * 6}
      height="24"
      role="img"
      aria-label={label}
    >
      {values.map((value, index) => {
        const height = value ? Math.max(2, (value / most) * 22) : 1;
        return (
          <rect
            key={index}
            class={value ? "" : "none"}
            x={index * 6}
            y={24 - height}
            width="4"
            height={height}
            rx="1"
          />
        );
      })}
    </svg>
  );
}

/** A share between 0 and 1 as a point on a line, with its interval. */
export function Interval({ value, low, high }: { value: number; low: number | null; high: number | null }) {
  const at = (share: number) => 2 + Math.max(0, Math.min(1, share)) * 96;
  return (
    <svg class="interval" viewBox="0 0 100 12" width="100" height="12" aria-hidden="true">
      <path class="interval-track" d="M2 6H98" />
      {low !== null && high !== null && <path class="interval-span" d={`M${at(low)} 6H${at(high)}`} />}
      <circle cx={at(value)} cy="6" r="3.5" />
    </svg>
  );
}
