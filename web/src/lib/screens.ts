// Every screen: its address, who may see it, and the letter that goes there after g.
import type { IconName } from "../parts/icon";
import type { Role } from "./contract";
import type { Key as Word } from "./i18n";
import { may } from "./session";

export type Screen = { name: Word & IconName; to: string; role: Role; key: string };

export const SCREENS: Screen[] = [
  { name: "chat", to: "/", role: "viewer", key: "c" },
  { name: "compare", to: "/compare", role: "annotator", key: "v" },
  { name: "live", to: "/live", role: "annotator", key: "l" },
  { name: "queue", to: "/queue", role: "annotator", key: "q" },
  { name: "dashboard", to: "/dashboard", role: "viewer", key: "d" },
  { name: "people", to: "/annotators", role: "manager", key: "p" },
  { name: "data", to: "/data", role: "manager", key: "b" },
  { name: "models", to: "/models", role: "viewer", key: "o" },
  { name: "settings", to: "/settings", role: "viewer", key: "s" },
];
const TALKING = 4; // the screens before this one are for talking, those after it for looking

const allowed = (screens: Screen[]) => screens.filter(({ role }) => may(role));
export const talking = () => allowed(SCREENS.slice(0, TALKING));
export const looking = () => allowed(SCREENS.slice(TALKING));
export const reachable = () => allowed(SCREENS);
