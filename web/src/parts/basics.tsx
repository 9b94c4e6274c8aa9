// The small pieces that every screen is made of.
import { type Signal, useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";
import { t } from "../lib/i18n";
import { explain, notify } from "../lib/notices";
import { Icon, type IconName } from "./icon";
import { Town } from "./town";

/** A button that is an icon, with its name for those who do not see it and on hover. */
export function IconButton(props: {
  icon: IconName;
  label: string;
  onClick: () => void;
  pressed?: boolean;
  disabled?: boolean;
  tone?: "good" | "bad";
  keyName?: string;
}) {
  const { icon, label, onClick, pressed, disabled, tone, keyName } = props;
  return (
    <button
      type="button"
      class={`icon-button ${tone ?? ""}`}
      title={keyName ? `${label} (${keyName})` : label}
      aria-label={label}
      aria-pressed={pressed}
      disabled={disabled}
      onClick={onClick}
    >
      <Icon name={icon} />
    </button>
  );
}

export const Key = ({ children }: { children: ComponentChildren }) => <kbd>{children}</kbd>;

/** The head of a screen: its name, a sentence on what it is for, and what can be done. */
export function Head({
  title,
  lead,
  children,
}: {
  title: string;
  lead?: string;
  children?: ComponentChildren;
}) {
  return (
    <header class="head">
      <div>
        <h1>{title}</h1>
        {lead && <p class="lead">{lead}</p>}
      </div>
      {children && <div class="head-actions">{children}</div>}
    </header>
  );
}

export function Empty({
  title,
  text,
  children,
  lit,
}: {
  title: string;
  text: string;
  children?: ComponentChildren;
  lit?: number;
}) {
  return (
    <div class="empty">
      <Town lit={lit ?? 4} />
      <h2>{title}</h2>
      <p>{text}</p>
      {children}
    </div>
  );
}

export const Skeleton = ({ lines = 3 }: { lines?: number }) => (
  <div class="skeleton" role="status" aria-label={t("loading")}>
    {Array.from({ length: lines }, (_, line) => (
      <i key={line} class={`skeleton-line w${line % 3}`} />
    ))}
  </div>
);

/** What `load` brings; it is asked again whenever one of `inputs` changes. */
export function useLoad<T>(load: () => Promise<T>, inputs: unknown[] = []) {
  const data = useSignal<T | null>(null);
  const error = useSignal<unknown>(null);
  const round = useRef(0);
  const reload = async () => {
    const mine = ++round.current;
    try {
      const found = await load();
      if (mine !== round.current) return;
      data.value = found;
      error.value = null;
    } catch (cause) {
      if (mine === round.current) error.value = cause;
    }
  };
  useEffect(() => {
    void reload();
  }, inputs);
  return { data, error, reload };
}

export function Loaded<T>({
  of,
  children,
  lines,
}: {
  of: ReturnType<typeof useLoad<T>>;
  children: (data: T) => ComponentChildren;
  lines?: number;
}) {
  if (of.data.value !== null) return <>{children(of.data.value)}</>;
  if (of.error.value) return <Trouble error={of.error.value} retry={of.reload} />;
  return <Skeleton lines={lines ?? 5} />;
}

export const Trouble = ({ error, retry }: { error: unknown; retry: () => void }) => (
  <div class="trouble" role="alert">
    <Icon name="alarm" />
    <p>{explain(error)}</p>
    <button type="button" class="quiet" onClick={retry}>
      {t("again")}
    </button>
  </div>
);

/** A part of a long screen: what it is on the left, what can be set on the right. */
export const Section = ({
  title,
  lead,
  children,
}: {
  title: string;
  lead?: string;
  children: ComponentChildren;
}) => (
  <section class="settings-section">
    <div>
      <h2>{title}</h2>
      {lead && <p class="soft">{lead}</p>}
    </div>
    <div class="stack">{children}</div>
  </section>
);

export const Field = ({
  label,
  note,
  children,
}: {
  label: string;
  note?: string;
  children: ComponentChildren;
}) => (
  <label class="field">
    <span class="field-label">{label}</span>
    {children}
    {note && <span class="field-note">{note}</span>}
  </label>
);

/** A field to look for something; what is typed stands in `text`. */
export const Search = ({
  label,
  text,
  size = 18,
}: {
  label: string;
  text: Signal<string>;
  size?: number;
}) => (
  <label class="search">
    <Icon name="search" size={size} />
    <input
      type="search"
      placeholder={label}
      aria-label={label}
      value={text.value}
      onInput={(event) => (text.value = event.currentTarget.value)}
    />
  </label>
);

export function Segments<T extends string | number>(props: {
  label: string;
  value: T;
  choices: [T, string][];
  onChange: (value: T) => void;
}) {
  const name = useId();
  return (
    <fieldset class="segments">
      <legend class="hidden">{props.label}</legend>
      {props.choices.map(([value, label]) => (
        <label key={value}>
          <input
            type="radio"
            name={name}
            checked={value === props.value}
            onChange={() => props.onChange(value)}
          />
          <span>{label}</span>
        </label>
      ))}
    </fieldset>
  );
}

export const Switch = ({
  label,
  hint,
  checked,
  onChange,
}: {
  label: string;
  hint?: string;
  checked: boolean;
  onChange: (on: boolean) => void;
}) => (
  <label class="switch" title={hint}>
    <input
      type="checkbox"
      role="switch"
      checked={checked}
      onChange={(event) => onChange(event.currentTarget.checked)}
    />
    <i aria-hidden="true" />
    <span>{label}</span>
  </label>
);

export async function copy(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    notify(t("copied"), "good");
  } catch {
    notify(t("error.copy"), "bad");
  }
}

/** A secret that is shown once, with a button that copies it. */
export const Secret = ({ value, note }: { value: string; note: string }) => (
  <div class="secret">
    <code>{value}</code>
    <button type="button" class="quiet" onClick={() => void copy(value)}>
      <Icon name="copy" size={16} /> {t("copy")}
    </button>
    <p>{note}</p>
  </div>
);
