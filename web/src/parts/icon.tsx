// Line icons on a 24-unit grid, one stroke each.
const PATHS = {
  chat: "M4 6.5A2.5 2.5 0 0 1 6.5 4h11A2.5 2.5 0 0 1 20 6.5v7a2.5 2.5 0 0 1-2.5 2.5H10l-4.5 4v-4A1.5 1.5 0 0 1 4 14.5z",
  compare: "M4 5h6.5v14H4zM13.5 5H20v14h-6.5z",
  live: "M3 12h3.5l2.5-6 4 12 3-8 1.5 2H21",
  queue: "M5 7h14M5 12h14M5 17h8",
  dashboard: "M4 19V5M4 19h16M8 15l4-5 3 2.5L20 7",
  people:
    "M9 11a3.2 3.2 0 1 0 0-6.4A3.2 3.2 0 0 0 9 11zM3.5 19c.4-3 2.7-4.8 5.5-4.8s5.1 1.8 5.5 4.8M16 11.5a2.6 2.6 0 1 0-.8-5M16.5 14.5c2.2.2 3.7 1.8 4 4.5",
  data: "M4 6.5C4 5 7.6 4 12 4s8 1 8 2.5v11c0 1.5-3.6 2.5-8 2.5s-8-1-8-2.5zM4 6.5C4 8 7.6 9 12 9s8-1 8-2.5M4 12c0 1.5 3.6 2.5 8 2.5s8-1 8-2.5",
  models: "M12 3.5 20 8v8l-8 4.5L4 16V8zM4 8l8 4.5L20 8M12 12.5v8",
  settings: "M4 8h9M17 8h3M4 16h3M11 16h9M15 5.5v5M9 13.5v5",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  up: "M7 11v8.5H4V11zM7 11l4-7c1.5 0 2.3 1 2 2.5L12.3 10H18c1.3 0 2.2 1.1 1.9 2.4l-1.3 5.5c-.3 1-1 1.6-2 1.6H7",
  down: "M17 13V4.5h3V13zM17 13l-4 7c-1.5 0-2.3-1-2-2.5l.7-3.5H6c-1.3 0-2.2-1.1-1.9-2.4l1.3-5.5c.3-1 1-1.6 2-1.6H17",
  edit: "M4.5 19.5l1-4L16 5l3 3L8.5 18.5zM13.5 7.5l3 3",
  remark: "M5 5h14v10.5h-7L8 19v-3.5H5zM8.5 9h7M8.5 12h4.5",
  mark: "M4 8V5.5h2.5M20 8V5.5h-2.5M4 16v2.5h2.5M20 16v2.5h-2.5M7.5 10.5h9M7.5 13.5h6",
  again: "M19 12a7 7 0 1 1-2.2-5.1M19 4v4h-4",
  stop: "M7 7h10v10H7z",
  send: "M12 19V5M6 11l6-6 6 6",
  flag: "M6 20V4.5M6 5h11l-2.5 4L17 13H6",
  check: "M5 12.5l4.5 4.5L19 7",
  close: "M6 6l12 12M18 6L6 18",
  more: "M6 12h.01M12 12h.01M18 12h.01",
  menu: "M4 7h16M4 12h16M4 17h16",
  book: "M12 6.5C10 5 7 4.5 4 5v13.5c3-.5 6 0 8 1.5 2-1.5 5-2 8-1.5V5c-3-.5-6 0-8 1.5zM12 6.5V20",
  left: "M14.5 6l-6 6 6 6",
  right: "M9.5 6l6 6-6 6",
  skip: "M5 6l8 6-8 6zM18 6v12",
  undo: "M8 5L4 9l4 4M4 9h10a5.5 5.5 0 0 1 0 11h-3",
  search: "M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM15.5 15.5L20 20",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 3v2M12 19v2M3 12h2M19 12h2M5.6 5.6L7 7M17 17l1.4 1.4M5.6 18.4L7 17M17 7l1.4-1.4",
  moon: "M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10z",
  auto: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l1 12.5h8L17 7M10.5 10.5v6M13.5 10.5v6",
  copy: "M9 9h10v10H9zM15 9V5H5v10h4",
  out: "M10 5H5v14h5M14 8l4 4-4 4M9 12h9",
  help: "M9.5 9.5a2.5 2.5 0 1 1 3.5 2.3c-.7.3-1 .9-1 1.7M12 16.8h.01M12 20.5a8.5 8.5 0 1 0 0-17 8.5 8.5 0 0 0 0 17z",
  alarm: "M12 4l9 15.5H3zM12 10v4.5M12 17h.01",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  upload: "M12 16V5M7 9l5-5 5 5M5 20h14",
  key: "M14.5 13a4.5 4.5 0 1 0-4.2-2.9L4 16.5V20h3.5v-2.5H10V15h2l.8-.9c.5.2 1.1.4 1.7-.1zM16 8h.01",
} as const;

export type IconName = keyof typeof PATHS;

export const Icon = ({ name, size = 20 }: { name: IconName; size?: number }) => (
  <svg
    class={`icon icon-${name}`}
    viewBox="0 0 24 24"
    width={size}
    height={size}
    aria-hidden="true"
    focusable="false"
  >
    <path d={PATHS[name]} />
  </svg>
);
