// The three doors: set up, log in, join by invitation.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ApiError, post } from "../lib/api";
import { language, setLanguage, t } from "../lib/i18n";
import { explain } from "../lib/notices";
import { go, path, takeSecret } from "../lib/router";
import { refresh, state } from "../lib/session";
import { Field, Segments } from "../parts/basics";
import { Icon } from "../parts/icon";
import { Town } from "../parts/town";

const secret = takeSecret();
type Door = "setup" | "join" | "login";

export function Entry() {
  const door: Door = state.value?.setup_needed ? "setup" : path.value === "/join" ? "join" : "login";
  const name = useSignal("");
  const password = useSignal("");
  const token = useSignal(secret);
  const wrong = useSignal<string | null>(null);
  const busy = useSignal(false);
  useEffect(() => {
    document.title = `${t(`entry.${door}`)} · rewardloop`;
  }, [door, language.value]);
  const enter = async (event: Event) => {
    event.preventDefault();
    busy.value = true;
    wrong.value = null;
    const who = { name: name.value.trim(), password: password.value };
    try {
      if (door === "login") await post("/api/login", who);
      else await post(`/api/${door}`, { ...who, token: token.value.trim(), language: language.value });
      if (path.value === "/setup" || path.value === "/join" || path.value === "/login") go("/", true);
      await refresh();
    } catch (error) {
      wrong.value =
        error instanceof ApiError && error.status === 401 && door === "login"
          ? t("entry.wrong")
          : explain(error);
    }
    busy.value = false;
  };
  return (
    <main class="entry">
      <div class="entry-card">
        <Town lit={door === "login" ? 14 : 6} />
        <p class="wordmark">rewardloop</p>
        <h1>{t(`entry.${door}_title`)}</h1>
        <p class="lead">{t(`entry.${door}_lead`)}</p>
        <form class="stack" onSubmit={(event) => void enter(event)}>
          {door !== "login" && !secret && (
            <Field label={t("entry.token")} note={t(`entry.${door}_token_note`)}>
              <input
                type="text"
                required
                autocomplete="off"
                value={token.value}
                onInput={(event) => (token.value = event.currentTarget.value)}
              />
            </Field>
          )}
          <Field label={t("name")}>
            <input
              type="text"
              name="username"
              required
              maxLength={64}
              autocomplete="username"
              value={name.value}
              onInput={(event) => (name.value = event.currentTarget.value)}
            />
          </Field>
          <Field label={t("password")} {...(door !== "login" && { note: t("entry.password_note") })}>
            <input
              type="password"
              name="password"
              required
              minLength={door === "login" ? 1 : 8}
              autocomplete={door === "login" ? "current-password" : "new-password"}
              value={password.value}
              onInput={(event) => (password.value = event.currentTarget.value)}
            />
          </Field>
          {wrong.value && (
            <p class="wrong" role="alert">
              <Icon name="alarm" size={18} /> {wrong.value}
            </p>
          )}
          <button type="submit" class="primary wide" disabled={busy.value}>
            {t(`entry.${door}`)}
          </button>
        </form>
        <Segments
          label={t("language")}
          value={language.value}
          choices={[
            ["en", "English"],
            ["zh", "中文"],
          ]}
          onChange={setLanguage}
        />
      </div>
    </main>
  );
}
