// Who may come in, and what other programs may do.
import { useSignal } from "@preact/signals";
import { get, patch, post, remove } from "../lib/api";
import type { Key as ApiKey, Invitation, Member, Role, Scope } from "../lib/contract";
import { ago, day, t, word } from "../lib/i18n";
import { complain } from "../lib/notices";
import { may, user } from "../lib/session";
import { Field, IconButton, Loaded, Secret, Section, useLoad } from "../parts/basics";
import { Icon } from "../parts/icon";

const ROLES: Role[] = ["viewer", "annotator", "manager", "owner"];

export function People() {
  const people = useLoad(() => get<{ items: Member[] }>("/api/users"));
  const invitations = useLoad(() => get<{ items: Invitation[] }>("/api/invitations"));
  const role = useSignal<Role>("annotator");
  const made = useSignal<Invitation | null>(null);
  const invite = () =>
    void post<Invitation>("/api/invitations", { role: role.value }).then((found) => {
      made.value = found;
      void invitations.reload();
    }, complain);
  const update = (id: string, body: Partial<Member>) =>
    void patch(`/api/users/${id}`, body).then(people.reload, complain);
  return (
    <Section title={t("settings.people")} lead={t("settings.people_lead")}>
      <Loaded of={people} lines={3}>
        {({ items }) => (
          <ul class="list people">
            {items.map((one) => (
              <li key={one.id} class={one.disabled ? "excluded" : ""}>
                <b>{one.name}</b>
                <select
                  aria-label={t("role.of", { name: one.name })}
                  value={one.role}
                  disabled={!may("owner") || one.id === user.value?.id}
                  onChange={(event) => update(one.id, { role: event.currentTarget.value as Role })}
                >
                  {ROLES.map((name) => (
                    <option key={name} value={name}>
                      {word("role", name)}
                    </option>
                  ))}
                </select>
                {may("owner") && one.id !== user.value?.id && (
                  <button
                    type="button"
                    class="quiet"
                    onClick={() => update(one.id, { disabled: !one.disabled })}
                  >
                    {one.disabled ? t("settings.enable") : t("settings.disable")}
                  </button>
                )}
              </li>
            ))}
          </ul>
        )}
      </Loaded>
      <div class="row wrap">
        <select
          aria-label={t("role")}
          value={role.value}
          onChange={(event) => (role.value = event.currentTarget.value as Role)}
        >
          {ROLES.map((name) => (
            <option key={name} value={name}>
              {word("role", name)}
            </option>
          ))}
        </select>
        <button type="button" class="primary" onClick={invite}>
          {t("settings.invite")}
        </button>
      </div>
      {made.value?.link && (
        <Secret
          value={made.value.link}
          note={t("settings.invite_note", { until: day(made.value.expires_at) })}
        />
      )}
      <Loaded of={invitations} lines={1}>
        {({ items }) =>
          items.length > 0 && (
            <ul class="list">
              {items.map((one) => (
                <li key={one.id}>
                  {t("settings.open_invitation", {
                    role: word("role", one.role),
                    until: day(one.expires_at),
                  })}
                  <IconButton
                    icon="trash"
                    label={t("delete")}
                    onClick={() =>
                      void remove(`/api/invitations/${one.id}`).then(invitations.reload, complain)
                    }
                  />
                </li>
              ))}
            </ul>
          )
        }
      </Loaded>
    </Section>
  );
}

const SCOPES: Scope[] = ["infer", "feedback", "read", "admin"];

export function Keys() {
  const keys = useLoad(() => get<{ items: ApiKey[] }>("/api/keys"));
  const name = useSignal("");
  const scopes = useSignal<Scope[]>(["infer", "feedback"]);
  const made = useSignal<{ id: string; key: string } | null>(null);
  const make = (event: Event) => {
    event.preventDefault();
    void post<{ id: string; key: string }>("/api/keys", {
      name: name.value.trim(),
      scopes: scopes.value,
    }).then((found) => {
      made.value = found;
      name.value = "";
      void keys.reload();
    }, complain);
  };
  const toggle = (scope: Scope) =>
    (scopes.value = scopes.value.includes(scope)
      ? scopes.value.filter((one) => one !== scope)
      : [...scopes.value, scope]);
  return (
    <Section
      title={t("settings.api_keys")}
      lead={t("settings.api_keys_lead", { url: `${location.origin}/v1` })}
    >
      <Loaded of={keys} lines={1}>
        {({ items }) => (
          <ul class="list">
            {items.map((one) => (
              <li key={one.id}>
                <Icon name="key" size={18} /> <b>{one.name}</b>
                <span class="soft">{one.scopes.map((scope) => word("scope", scope)).join(", ")}</span>
                {one.last_used_at && <span class="soft">{ago(one.last_used_at)}</span>}
                <IconButton
                  icon="trash"
                  label={t("settings.revoke")}
                  onClick={() => void remove(`/api/keys/${one.id}`).then(keys.reload, complain)}
                />
              </li>
            ))}
          </ul>
        )}
      </Loaded>
      {made.value && <Secret value={made.value.key} note={t("settings.key_once")} />}
      <form class="stack" onSubmit={make}>
        <Field label={t("settings.key_name")}>
          <input
            type="text"
            required
            maxLength={64}
            value={name.value}
            onInput={(event) => (name.value = event.currentTarget.value)}
          />
        </Field>
        <div class="row wrap">
          {SCOPES.map((scope) => (
            <label key={scope} class="check">
              <input type="checkbox" checked={scopes.value.includes(scope)} onChange={() => toggle(scope)} />{" "}
              {word("scope", scope)}
            </label>
          ))}
        </div>
        <div class="row">
          <button type="submit" class="primary" disabled={!scopes.value.length}>
            {t("settings.make_key")}
          </button>
        </div>
      </form>
    </Section>
  );
}
