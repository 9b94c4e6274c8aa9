// What lies over the page until it is answered or closed.
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";
import { t } from "../lib/i18n";
import { useKeys } from "../lib/keys";
import { Field, IconButton } from "./basics";

export function Dialog({
  title,
  onClose,
  children,
  wide,
}: {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  wide?: boolean;
}) {
  const element = useRef<HTMLDialogElement>(null);
  const id = useId();
  useKeys([], true);
  useEffect(() => {
    element.current?.showModal();
  }, []);
  return (
    <dialog
      ref={element}
      class={wide ? "dialog wide" : "dialog"}
      aria-labelledby={id}
      onClose={onClose}
      onClick={(event) => event.target === element.current && element.current?.close()}
    >
      <div class="dialog-body">
        <header>
          <h2 id={id}>{title}</h2>
          <IconButton icon="close" label={t("close")} onClick={() => element.current?.close()} />
        </header>
        {children}
      </div>
    </dialog>
  );
}

/** One text asked for in a dialog: a reason, a name. */
export function Ask(props: {
  title: string;
  label: string;
  action: string;
  choices?: string[];
  bad?: boolean;
  onAnswer: (text: string) => void;
  onClose: () => void;
}) {
  const text = useSignal("");
  const { title, label, action, choices, onAnswer, onClose, bad } = props;
  return (
    <Dialog title={title} onClose={onClose}>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          if (text.value.trim()) onAnswer(text.value.trim());
        }}
      >
        {choices && (
          <div class="chips">
            {choices.map((choice) => (
              <button key={choice} type="button" class="chip" onClick={() => onAnswer(choice)}>
                {choice}
              </button>
            ))}
          </div>
        )}
        <Field label={label}>
          <input
            type="text"
            maxLength={500}
            value={text.value}
            onInput={(event) => (text.value = event.currentTarget.value)}
          />
        </Field>
        <div class="row end">
          <button type="submit" class={bad ? "primary bad" : "primary"} disabled={!text.value.trim()}>
            {action}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

/** A yes or no before something that everybody notices. */
export function Confirm(props: {
  title: string;
  text: string;
  action: string;
  onYes: () => void;
  onClose: () => void;
}) {
  const { title, text, action, onYes, onClose } = props;
  return (
    <Dialog title={title} onClose={onClose}>
      <p>{text}</p>
      <div class="row end">
        <button type="button" class="quiet" onClick={onClose}>
          {t("cancel")}
        </button>
        <button type="button" class="primary" onClick={onYes}>
          {action}
        </button>
      </div>
    </Dialog>
  );
}
