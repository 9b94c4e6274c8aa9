// The town on the horizon. Every judgment of the day lights a window.
import { t } from "../lib/i18n";

type House = { x: number; width: number; wall: number; roof: number; kind: "gable" | "tower" | "flat" };

const GROUND = 96;
const HOUSES: House[] = [
  { x: 8, width: 34, wall: 26, roof: 16, kind: "gable" },
  { x: 46, width: 26, wall: 40, roof: 14, kind: "gable" },
  { x: 76, width: 40, wall: 30, roof: 18, kind: "gable" },
  { x: 122, width: 18, wall: 56, roof: 18, kind: "tower" },
  { x: 144, width: 36, wall: 34, roof: 15, kind: "gable" },
  { x: 184, width: 30, wall: 46, roof: 12, kind: "flat" },
  { x: 218, width: 42, wall: 28, roof: 20, kind: "gable" },
  { x: 264, width: 24, wall: 42, roof: 14, kind: "gable" },
  { x: 292, width: 38, wall: 24, roof: 15, kind: "gable" },
];

function outline({ x, width, wall, roof, kind }: House): string {
  const top = GROUND - wall;
  const eaves = kind === "flat" ? 0 : 3;
  const peak =
    kind === "flat"
      ? `V${top}H${x + width}`
      : `V${top}h${-eaves}L${x + width / 2} ${top - roof}L${x + width + eaves} ${top}h${-eaves}`;
  return `M${x} ${GROUND}${peak}V${GROUND}`;
}

function windows({ x, width, wall, kind }: House): [number, number][] {
  const columns = Math.max(1, Math.floor((width - 8) / 11));
  const rows = Math.max(1, Math.floor((wall - 12) / 13));
  const gap = width / (columns + 1);
  const cells: [number, number][] = [];
  for (let row = 0; row < rows; row++)
    for (let column = 1; column <= columns; column++)
      cells.push([x + gap * column - 2.5, GROUND - wall + 7 + row * 13 + (kind === "tower" ? 4 : 0)]);
  return cells;
}

const TREES: [number, number][] = [
  [0, 13],
  [338, 15],
];
const WINDOWS = HOUSES.flatMap(windows);
// Lights come on here and there, not from left to right.
const LIGHTING = WINDOWS.map((_, index) => index).sort((a, b) => ((a * 17) % 31) - ((b * 17) % 31) || a - b);
export const WINDOW_COUNT = WINDOWS.length;

export function Town({ lit = 5, label }: { lit?: number; label?: boolean }) {
  const bright = new Set(LIGHTING.slice(0, Math.min(lit, WINDOWS.length)));
  return (
    <svg
      class="town"
      viewBox="-10 0 360 98"
      role="img"
      aria-label={label ? t("town.lit", { n: lit }) : t("town.alt")}
    >
      <circle class="town-moon" cx="300" cy="22" r="9" />
      <path class="town-hill" d="M-9 96C40 66 120 58 170 56s130 4 178 40z" />
      {HOUSES.map((house) => (
        <path key={house.x} class="town-house" d={outline(house)} />
      ))}
      {WINDOWS.map(([x, y], index) => (
        <rect
          key={index}
          class={bright.has(index) ? "town-window lit" : "town-window"}
          x={x}
          y={y}
          width="5"
          height="7"
          rx="1.2"
        />
      ))}
      <path class="town-ground" d="M-9 96.5H349" />
      {TREES.map(([x, height]) => (
        <g key={x} class="town-tree">
          <path d={`M${x} 96v${-height}`} />
          <circle cx={x} cy={96 - height} r={height * 0.42} />
        </g>
      ))}
    </svg>
  );
}
