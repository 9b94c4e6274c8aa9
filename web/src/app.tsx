// The frame around every screen: where one can go, who one is, how the line is.
import { useSignal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect } from "preact/hooks";
import { listConversations } from "./lib/chat";
import { language, t } from "./lib/i18n";
import { useKeys } from "./lib/keys";
import { announcement, dismiss, notices } from "./lib/notices";
import { path, segments } from "./lib/router";
import { SCREENS, talking } from "./lib/screens";
import { refresh, state, unreachable, user } from "./lib/session";
import { IconButton } from "./parts/basics";
import { Going, Help } from "./parts/help";
import { Icon } from "./parts/icon";
import { LineState, Sidebar } from "./parts/sidebar";
import { Town } from "./parts/town";
import { Annotators } from "./screens/annotators";
import { Chat } from "./screens/chat";
import { Compare } from "./screens/compare";
import { Dashboard } from "./screens/dashboard";
import { Data } from "./screens/data";
import { Entry } from "./screens/entry";
import { Live } from "./screens/live";
import { Models } from "./screens/models";
import { Queue } from "./screens/queue";
import { Settings } from "./screens/settings";

const SHOWN: Record<string, ComponentType> = {
  "/": Chat,
  "/compare": Compare,
  "/live": Live,
  "/queue": Queue,
  "/dashboard": Dashboard,
  "/annotators": Annotators,
  "/data": Data,
  "/models": Models,
  "/settings": Settings,
};

const current = () => SCREENS.find(({ to }) => to === `/${segments.value[0] ?? ""}`) ?? SCREENS[0]!;

export function App() {
  if (!state.value) return <Waiting />;
  if (!user.value) return <Entry />;
  return <Frame />;
}

const Waiting = () => (
  <main class="entry">
    <div class="entry-card waiting">
      <Town lit={3} />
      <p class="wordmark">rewardloop</p>
      {unreachable.value !== null && (
        <>
          <p role="alert">{t("error.offline")}</p>
          <button type="button" class="primary" onClick={() => void refresh()}>
            {t("again")}
          </button>
        </>
      )}
    </div>
  </main>
);

function Frame() {
  const menu = useSignal(false);
  const help = useSignal(false);
  const going = useSignal(false);
  const screen = current();
  const Shown = SHOWN[screen.to]!;
  useEffect(() => void listConversations(), []);
  useEffect(() => {
    menu.value = false;
  }, [path.value]);
  useEffect(() => {
    document.title = `${t(screen.name)} · rewardloop`;
  }, [screen, language.value]);
  useKeys([
    { keys: ["?"], label: t("keys.help"), run: () => (help.value = true) },
    {
      keys: ["g"],
      label: t("keys.go"),
      run: () => {
        going.value = true;
        setTimeout(() => (going.value = false), 1_500);
      },
    },
  ]);
  return (
    <>
      <a class="skip" href="#main">
        {t("skip_to_main")}
      </a>
      <div class={menu.value ? "frame menu-open" : "frame"}>
        <header class="topbar">
          <IconButton
            icon="menu"
            label={t("menu")}
            pressed={menu.value}
            onClick={() => (menu.value = !menu.value)}
          />
          <span class="wordmark">rewardloop</span>
          <LineState />
        </header>
        <Sidebar screen={screen} onHelp={() => (help.value = true)} />
        {menu.value && (
          <button type="button" class="scrim" aria-label={t("close")} onClick={() => (menu.value = false)} />
        )}
        <main id="main" tabIndex={-1}>
          <EngineState />
          <Shown key={screen.to} />
        </main>
        <nav class="tabs" aria-label={t("menu.main")}>
          {talking().map((one) => (
            <a key={one.to} href={one.to} data-link aria-current={one === screen ? "page" : undefined}>
              <Icon name={one.name} />
              <span>{t(one.name)}</span>
            </a>
          ))}
          <button type="button" aria-expanded={menu.value} onClick={() => (menu.value = !menu.value)}>
            <Icon name="menu" />
            <span>{t("menu.more")}</span>
          </button>
        </nav>
      </div>
      {going.value && <Going onDone={() => (going.value = false)} />}
      {help.value && <Help onClose={() => (help.value = false)} />}
      <Notices />
      <p class="hidden" aria-live="polite" role="status">
        {announcement.value}
      </p>
    </>
  );
}

function EngineState() {
  const engine = state.value?.engine;
  if (engine !== "starting" && engine !== "down") return null;
  return (
    <p class={engine === "down" ? "alarm critical" : "alarm info"} role="status">
      <Icon name="alarm" /> {t(`engine.${engine}`)}
    </p>
  );
}

const Notices = () => (
  <div class="notices" aria-live="polite">
    {notices.value.map(({ id, tone, text, action }) => (
      <div key={id} class={`notice ${tone}`} role={tone === "bad" ? "alert" : undefined}>
        <Icon name={tone === "bad" ? "alarm" : "check"} size={18} />
        <p>{text}</p>
        {action && (
          <button type="button" class="link" onClick={action.run}>
            {action.label}
          </button>
        )}
        <IconButton icon="close" label={t("close")} onClick={() => dismiss(id)} />
      </div>
    ))}
  </div>
);
