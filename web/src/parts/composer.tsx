// Where one writes: grows with the text, sends on Enter, and leaves Enter to an input method that composes.
import type { Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { t } from "../lib/i18n";
import { Icon } from "./icon";

type Props = {
  text: Signal<string>;
  placeholder: string;
  onSend: (text: string) => void;
  busy?: boolean;
  onStop?: () => void;
  mayBeEmpty?: boolean;
  disabled?: boolean;
  children?: ComponentChildren;
};

export function Composer({ text, placeholder, onSend, busy, onStop, mayBeEmpty, disabled, children }: Props) {
  const ready = !busy && !disabled && (mayBeEmpty || text.value.trim() !== "");
  const send = () => {
    if (!ready) return;
    const said = text.value;
    text.value = "";
    onSend(said);
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <textarea
        id="composer"
        rows={1}
        value={text.value}
        placeholder={placeholder}
        aria-label={placeholder}
        onInput={(event) => (text.value = event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Escape" && busy && !event.isComposing) onStop?.();
          // Safari ends a composition before the Enter that confirms it; it reports key code 229 then.
          if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
          event.preventDefault();
          send();
        }}
      />
      <div class="composer-bar">
        {children}
        <span class="bar-gap" />
        {busy && onStop ? (
          <button
            type="button"
            class="send stop"
            aria-label={t("stop")}
            title={`${t("stop")} (Esc)`}
            onClick={onStop}
          >
            <Icon name="stop" />
          </button>
        ) : (
          <button type="submit" class="send" aria-label={t("send")} disabled={!ready}>
            <Icon name="send" />
          </button>
        )}
      </div>
    </form>
  );
}

export const focusComposer = () => document.getElementById("composer")?.focus();
