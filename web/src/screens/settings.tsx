import { useSignal } from "@preact/signals";
import { get, patch, post, put } from "../lib/api";
import type { Settings as Chosen, Criterion, Language } from "../lib/contract";
import { ago, language, setLanguage, t, word } from "../lib/i18n";
import { singleKeys } from "../lib/keys";
import { complain, notify } from "../lib/notices";
import { logOut, may, settings, user } from "../lib/session";
import { type Theme, theme } from "../lib/theme";
import { Field, Head, Loaded, Section, Segments, Switch, useLoad } from "../parts/basics";
import { Icon } from "../parts/icon";
import { Keys, People } from "./members";

export const Settings = () => (
  <div class="screen settings">
    <Head title={t("settings")} />
    <Me />
    {may("manager") && <Rules />}
    {may("manager") && <People />}
    {may("owner") && <Keys />}
    {may("owner") && <Audit />}
  </div>
);

function Me() {
  const chooseLanguage = (chosen: Language) => {
    setLanguage(chosen);
    void patch("/api/me", { language: chosen }).catch(complain);
  };
  return (
    <Section
      title={t("settings.me")}
      lead={user.value ? `${user.value.name} · ${word("role", user.value.role)}` : ""}
    >
      <div class="row wrap">
        <Segments<Language>
          label={t("language")}
          value={language.value}
          choices={[
            ["en", "English"],
            ["zh", "中文"],
          ]}
          onChange={chooseLanguage}
        />
        <Segments<Theme>
          label={t("theme")}
          value={theme.value}
          choices={[
            ["auto", t("theme.auto")],
            ["light", t("theme.light")],
            ["dark", t("theme.dark")],
          ]}
          onChange={(chosen) => (theme.value = chosen)}
        />
      </div>
      <Switch
        label={t("settings.keys_on")}
        checked={singleKeys.value}
        onChange={(on) => (singleKeys.value = on)}
      />
      <Password />
      <div class="row">
        <button type="button" class="quiet" onClick={() => void logOut().catch(complain)}>
          <Icon name="out" size={18} /> {t("log_out")}
        </button>
      </div>
    </Section>
  );
}

function Password() {
  const old = useSignal("");
  const fresh = useSignal("");
  const save = (event: Event) => {
    event.preventDefault();
    void patch("/api/me", { password: { old: old.value, new: fresh.value } }).then(() => {
      old.value = "";
      fresh.value = "";
      notify(t("settings.password_changed"), "good");
    }, complain);
  };
  return (
    <details>
      <summary>{t("settings.password")}</summary>
      <form class="stack" onSubmit={save}>
        <Field label={t("settings.old_password")}>
          <input
            type="password"
            autocomplete="current-password"
            required
            value={old.value}
            onInput={(event) => (old.value = event.currentTarget.value)}
          />
        </Field>
        <Field label={t("settings.new_password")} note={t("entry.password_note")}>
          <input
            type="password"
            autocomplete="new-password"
            minLength={8}
            required
            value={fresh.value}
            onInput={(event) => (fresh.value = event.currentTarget.value)}
          />
        </Field>
        <div class="row">
          <button type="submit" class="primary">
            {t("save")}
          </button>
        </div>
      </form>
    </details>
  );
}

function Rules() {
  const text = useSignal<string | null>(null);
  const chosen = settings.value;
  if (!chosen) return null;
  const save = (changed: Partial<Chosen>, said = t("saved")) =>
    void put("/api/settings", { ...chosen, ...changed }).then(() => {
      settings.value = { ...chosen, ...changed };
      notify(said, "good");
    }, complain);
  const guidelines = text.value ?? chosen.guidelines;
  return (
    <Section title={t("settings.judging")} lead={t("settings.judging_lead")}>
      <Field label={t("guidelines")} note={t("settings.markdown")}>
        <textarea rows={6} value={guidelines} onInput={(event) => (text.value = event.currentTarget.value)} />
      </Field>
      {guidelines !== chosen.guidelines && (
        <div class="row">
          <button
            type="button"
            class="primary"
            onClick={() =>
              void put("/api/guidelines", { text: guidelines }).then(() => {
                settings.value = { ...chosen, guidelines };
                notify(t("saved"), "good");
              }, complain)
            }
          >
            {t("save")}
          </button>
        </div>
      )}
      <Criteria
        criteria={chosen.criteria}
        onAdd={(one) =>
          void post("/v1/criteria", one).then(() => {
            settings.value = { ...chosen, criteria: [...chosen.criteria, one] };
          }, complain)
        }
      />
      <Switch
        label={t("settings.show_rewards")}
        checked={chosen.show_rewards_to_annotators}
        onChange={(on) => save({ show_rewards_to_annotators: on })}
      />
    </Section>
  );
}

function Criteria({ criteria, onAdd }: { criteria: Criterion[]; onAdd: (one: Criterion) => void }) {
  const name = useSignal("");
  const description = useSignal("");
  return (
    <div class="stack">
      <h3>{t("settings.criteria")}</h3>
      <ul class="list">
        {criteria.map((one) => (
          <li key={one.name}>
            <b>{word("criterion", one.name)}</b> <span class="soft">{one.description}</span>
            <span class="soft">
              {one.scale.low}–{one.scale.high}
            </span>
          </li>
        ))}
      </ul>
      <form
        class="fields"
        onSubmit={(event) => {
          event.preventDefault();
          onAdd({
            name: name.value.trim(),
            description: description.value.trim(),
            scale: { low: 1, high: 5 },
          });
          name.value = "";
          description.value = "";
        }}
      >
        <Field label={t("name")}>
          <input
            type="text"
            required
            maxLength={64}
            pattern="[a-z0-9_\-]+"
            title="a-z 0-9 _ -"
            value={name.value}
            onInput={(event) => (name.value = event.currentTarget.value)}
          />
        </Field>
        <Field label={t("description")}>
          <input
            type="text"
            maxLength={500}
            value={description.value}
            onInput={(event) => (description.value = event.currentTarget.value)}
          />
        </Field>
        <button type="submit" class="quiet">
          <Icon name="plus" size={18} /> {t("add")}
        </button>
      </form>
    </div>
  );
}

type Entry = { seq: number; at: string; what: string; actor: { id: string; name: string } };

function Audit() {
  const open = useSignal(false);
  const entries = useLoad(
    () => (open.value ? get<{ items: Entry[] }>("/api/audit") : Promise.resolve({ items: [] })),
    [open.value],
  );
  return (
    <Section title={t("settings.audit")} lead={t("settings.audit_lead")}>
      <details onToggle={(event) => (open.value = event.currentTarget.open)}>
        <summary>{t("settings.audit_show")}</summary>
        <Loaded of={entries} lines={3}>
          {({ items }) => (
            <ul class="list">
              {items.map((one) => (
                <li key={one.seq}>
                  <time class="soft">{ago(one.at)}</time> <b>{one.actor.name}</b> {one.what}
                </li>
              ))}
            </ul>
          )}
        </Loaded>
      </details>
    </Section>
  );
}
