// Where one can go, what was talked about, who one is, and what still waits to be sent.
import { useComputed } from "@preact/signals";
import { conversationId, conversations, forget } from "../lib/chat";
import { t } from "../lib/i18n";
import { outbox } from "../lib/judgments";
import { newConversation } from "../lib/navigation";
import { complain } from "../lib/notices";
import { path } from "../lib/router";
import { looking, type Screen, talking } from "../lib/screens";
import { model, user } from "../lib/session";
import { socket } from "../lib/socket";
import { type Theme, theme } from "../lib/theme";
import { IconButton } from "./basics";
import { Icon, type IconName } from "./icon";

export function Sidebar({ screen, onHelp }: { screen: Screen; onHelp: () => void }) {
  const link = (one: Screen) => (
    <li key={one.to}>
      <a href={one.to} data-link aria-current={one === screen ? "page" : undefined}>
        <Icon name={one.name} />
        {t(one.name)}
      </a>
    </li>
  );
  return (
    <div class="sidebar">
      <div class="row between brand">
        <a class="wordmark" href="/" data-link>
          rewardloop
        </a>
        <LineState />
      </div>
      <nav aria-label={t("menu.main")}>
        <ul>{talking().map(link)}</ul>
        <ul>{looking().map(link)}</ul>
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
export function LineState() {
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
