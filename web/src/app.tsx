// The frame around every screen: where one can go, who one is, how the line is.
import { useComputed, useSignal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect } from "preact/hooks";
import { conversationId, conversations, forget, listConversations } from "./lib/chat";
import type { Role } from "./lib/contract";
import { language, t, type Key as Word } from "./lib/i18n";
import { outbox } from "./lib/judgments";
import { currentShortcuts, useKeys } from "./lib/keys";
import { newConversation } from "./lib/navigation";
import { announcement, complain, dismiss, notices } from "./lib/notices";
import { go, path, segments } from "./lib/router";
import { may, model, refresh, state, unreachable, user } from "./lib/session";
import { socket } from "./lib/socket";
import { type Theme, theme } from "./lib/theme";
import { Dialog, IconButton, Key } from "./parts/basics";
import { Icon, type IconName } from "./parts/icon";
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

type Screen = { name: Word & IconName; to: string; show: ComponentType; role: Role; key: string };

const SCREENS: Screen[] = [
  { name: "chat", to: "/", show: Chat, role: "viewer", key: "c" },
  { name: "compare", to: "/compare", show: Compare, role: "annotator", key: "v" },
  { name: "live", to: "/live", show: Live, role: "annotator", key: "l" },
  { name: "queue", to: "/queue", show: Queue, role: "annotator", key: "q" },
  { name: "dashboard", to: "/dashboard", show: Dashboard, role: "viewer", key: "d" },
  { name: "people", to: "/annotators", show: Annotators, role: "manager", key: "p" },
  { name: "data", to: "/data", show: Data, role: "viewer", key: "b" },
  { name: "models", to: "/models", show: Models, role: "viewer", key: "o" },
  { name: "settings", to: "/settings", show: Settings, role: "viewer", key: "s" },
];
const TALKING = 4; // the screens before this one are for talking, those after it for looking

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
  const Screen = screen.show;
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
          <Screen key={screen.to} />
        </main>
        <nav class="tabs" aria-label={t("menu.main")}>
          {SCREENS.slice(0, TALKING)
            .filter(({ role }) => may(role))
            .map((one) => (
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

function Sidebar({ screen, onHelp }: { screen: Screen; onHelp: () => void }) {
  const link = (one: Screen) => (
    <li key={one.to}>
      <a href={one.to} data-link aria-current={one === screen ? "page" : undefined}>
        <Icon name={one.name} />
        {t(one.name)}
      </a>
    </li>
  );
  const shown = (from: number, to?: number) =>
    SCREENS.slice(from, to)
      .filter(({ role }) => may(role))
      .map(link);
  return (
    <div class="sidebar">
      <div class="row between brand">
        <a class="wordmark" href="/" data-link>
          rewardloop
        </a>
        <LineState />
      </div>
      <nav aria-label={t("menu.main")}>
        <ul>{shown(0, TALKING)}</ul>
        <ul>{shown(TALKING)}</ul>
      </nav>
      <Conversations />
      <footer class="sidebar-foot">
        <OutboxState />
        {model.value && (
          <p class="model-pill" title={model.value.title}>
            <span class="ellipsis">{model.value.title}</span>{" "}
            <span class="version">{model.value.weight_version}</span>
          </p>
        )}
        <div class="row between">
          <span class="ellipsis">{user.value?.name}</span>
          <span class="row tight">
            <ThemeButton />
            <IconButton icon="help" label={t("keys.help")} keyName="?" onClick={onHelp} />
          </span>
        </div>
      </footer>
    </div>
  );
}

function Conversations() {
  const list = conversations.value;
  return (
    <section class="conversations" aria-label={t("conversations")}>
      <header class="row between">
        <h2>{t("conversations")}</h2>
        <IconButton icon="plus" label={t("keys.new")} keyName="n" onClick={newConversation} />
      </header>
      {list && list.length === 0 && <p class="soft">{t("conversations.none")}</p>}
      <ul>
        {list?.map((one) => (
          <li key={one.id}>
            <a
              href={`/chat/${one.id}`}
              data-link
              aria-current={
                one.id === conversationId.value && path.value.startsWith("/chat") ? "page" : undefined
              }
            >
              <span class="ellipsis">{one.title || t("conversations.untitled")}</span>
            </a>
            <IconButton
              icon="trash"
              label={t("conversations.delete", { title: one.title })}
              onClick={() => void forget(one.id).catch(complain)}
            />
          </li>
        ))}
      </ul>
    </section>
  );
}

function ThemeButton() {
  const next: Record<Theme, Theme> = { auto: "light", light: "dark", dark: "auto" };
  const icons: Record<Theme, IconName> = { auto: "auto", light: "sun", dark: "moon" };
  return (
    <IconButton
      icon={icons[theme.value]}
      label={t("theme.now", { theme: t(`theme.${theme.value}`) })}
      onClick={() => (theme.value = next[theme.value])}
    />
  );
}

/** A dot that is there only when the line is not. */
function LineState() {
  const line = socket.line.value;
  if (line === "open" || line === "closed") return null;
  return (
    <span class={`line ${line}`} role="status">
      {t(line === "broken" ? "line.broken" : "line.connecting")}
    </span>
  );
}

function OutboxState() {
  const waiting = useComputed(
    () => outbox.letters.value.filter((letter) => letter.tries > 0 && !letter.refused).length,
  );
  const refused = useComputed(() => outbox.letters.value.filter((letter) => letter.refused));
  if (!waiting.value && !refused.value.length) return null;
  return (
    <div class="outbox" role="status">
      {waiting.value > 0 && (
        <p>
          {t("outbox.waiting", { n: waiting.value })}{" "}
          <button type="button" class="link" onClick={() => void outbox.flush()}>
            {t("outbox.now")}
          </button>
        </p>
      )}
      {refused.value.map((letter) => (
        <p key={letter.key}>
          {t("outbox.refused", { why: letter.refused ?? "" })}{" "}
          <button type="button" class="link" onClick={() => outbox.cancel(letter.key)}>
            {t("outbox.discard")}
          </button>
        </p>
      ))}
    </div>
  );
}

function EngineState() {
  const engine = state.value?.engine;
  if (engine === "ready" || !engine) return null;
  return (
    <p class={engine === "down" ? "alarm critical" : "alarm info"} role="status">
      <Icon name="alarm" /> {t(`engine.${engine}`)}
    </p>
  );
}

function Going({ onDone }: { onDone: () => void }) {
  const screens = SCREENS.filter(({ role }) => may(role));
  useKeys(
    [
      ...screens.map((one) => ({
        keys: [one.key],
        label: t(one.name),
        run: () => {
          onDone();
          go(one.to);
        },
      })),
      { keys: ["Escape"], label: t("close"), run: onDone },
    ],
    true,
  );
  return (
    <p class="going" role="status">
      {screens.map((one) => (
        <span key={one.to}>
          <Key>{one.key}</Key> {t(one.name)}
        </span>
      ))}
    </p>
  );
}

function Help({ onClose }: { onClose: () => void }) {
  // Read before the dialog's own layer silences the rest.
  const shortcuts = useSignal(currentShortcuts());
  return (
    <Dialog title={t("keys.help")} onClose={onClose}>
      <dl class="shortcuts">
        {shortcuts.value.map(({ keys, label }) => (
          <div key={keys.join()}>
            <dt>
              {keys
                .filter((key) => key !== "=")
                .map((key) => (
                  <Key key={key}>{key.replace("Arrow", "").replace("Escape", "Esc")}</Key>
                ))}
            </dt>
            <dd>{label}</dd>
          </div>
        ))}
        <div>
          <dt>
            <Key>Ctrl</Key>
            <Key>Enter</Key>
          </dt>
          <dd>{t("keys.submit")}</dd>
        </div>
      </dl>
      <p class="note">{t("keys.note")}</p>
    </Dialog>
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
