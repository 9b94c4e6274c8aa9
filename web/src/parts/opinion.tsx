// What one can say about an answer: a thumb, stars, a corrected text, a remark, a flag.
import { useSignal } from "@preact/signals";
import type { Target } from "../lib/contract";
import { difference } from "../lib/difference";
import { t, word } from "../lib/i18n";
import { lastOf, say, takeBack } from "../lib/judgments";
import { complain } from "../lib/notices";
import { settings } from "../lib/session";
import { draft, stored } from "../lib/stored";
import { IconButton } from "./basics";
import { Icon } from "./icon";

const THUMB = { low: 0, high: 1 };
const STARS = { low: 1, high: 5 };

/** Says a rating, or takes it back when the same one is pressed again; a new one replaces the old. */
export function rate(
  target: Target,
  value: number,
  scale: { low: number; high: number },
  criterion = "overall",
): void {
  const before = ratingOf(target, scale, criterion);
  if (before) void takeBack(before).catch(complain);
  if (before?.body.kind === "rating" && before.body.value === value) return;
  void say(target, { kind: "rating", value, scale }, { criterion }).catch(complain);
}

const ratingOf = (target: Target, scale: { low: number; high: number }, criterion: string) =>
  lastOf(
    target,
    (body) =>
      body.kind === "rating" &&
      body.scale.low === scale.low &&
      body.scale.high === scale.high &&
      (body.criterion ?? "overall") === criterion,
  );

export function Thumbs({ target }: { target: Target }) {
  const before = ratingOf(target, THUMB, "overall")?.body;
  const value = before?.kind === "rating" ? before.value : null;
  return (
    <div class="thumbs" role="group" aria-label={t("thumbs")}>
      <IconButton
        icon="up"
        label={t("thumb.up")}
        tone="good"
        pressed={value === 1}
        onClick={() => rate(target, 1, THUMB)}
      />
      <IconButton
        icon="down"
        label={t("thumb.down")}
        tone="bad"
        pressed={value === 0}
        onClick={() => rate(target, 0, THUMB)}
      />
    </div>
  );
}

export function Stars({
  target,
  criterion = "overall",
  scale = STARS,
}: {
  target: Target;
  criterion?: string;
  scale?: { low: number; high: number };
}) {
  const before = ratingOf(target, scale, criterion)?.body;
  const value = before?.kind === "rating" ? before.value : null;
  return (
    <StarRow
      value={value}
      scale={scale}
      label={word("criterion", criterion)}
      onPick={(step) => rate(target, step, scale, criterion)}
    />
  );
}

export function StarRow(props: {
  value: number | null;
  scale: { low: number; high: number };
  label: string;
  onPick: (value: number) => void;
}) {
  const { value, scale, label, onPick } = props;
  const hovered = useSignal<number | null>(null);
  const steps = Array.from({ length: scale.high - scale.low + 1 }, (_, index) => scale.low + index);
  const filled = hovered.value ?? value ?? scale.low - 1;
  return (
    <div class="stars" role="group" aria-label={label} onPointerLeave={() => (hovered.value = null)}>
      {steps.map((step) => (
        <button
          key={step}
          type="button"
          class={step <= filled ? "star filled" : "star"}
          aria-label={t("stars.of", { n: step, high: scale.high })}
          aria-pressed={value === step}
          onPointerEnter={() => (hovered.value = step)}
          onClick={() => onPick(step)}
        >
          <svg viewBox="0 0 24 24" width="20" height="20" aria-hidden="true">
            <path d="M12 4.2l2.4 4.9 5.4.8-3.9 3.8.9 5.4L12 16.5l-4.8 2.6.9-5.4L4.2 9.9l5.4-.8z" />
          </svg>
        </button>
      ))}
    </div>
  );
}

/** Stars for every criterion that the settings declare. */
export function CriteriaStars({ target }: { target: Target }) {
  const open = useSignal(false);
  const others = (settings.value?.criteria ?? []).filter((one) => one.name !== "overall");
  return (
    <div class="criteria">
      <Stars target={target} />
      {others.length > 0 && (
        <IconButton
          icon="more"
          label={t("criteria.more")}
          pressed={open.value}
          onClick={() => (open.value = !open.value)}
        />
      )}
      {open.value && (
        <div class="popover criteria-popover">
          {others.map(({ name, scale, description }) => (
            <div key={name} class="row between" title={description}>
              <span>{word("criterion", name)}</span>
              <Stars target={target} criterion={name} scale={scale} />
            </div>
          ))}
        </div>
      )}
    </div>
  );
}

export function WordDiff({ before, after }: { before: string; after: string }) {
  return (
    <p class="word-diff">
      {difference(before, after).map((piece, index) =>
        piece.change === "added" ? (
          <ins key={index}>{piece.text}</ins>
        ) : piece.change === "removed" ? (
          <del key={index}>{piece.text}</del>
        ) : (
          <span key={index}>{piece.text}</span>
        ),
      )}
    </p>
  );
}

/** Corrects an answer where it stands; what changed is shown word by word. */
export function Editor(props: {
  name: string;
  before: string;
  onSave: (text: string) => void;
  onCancel: () => void;
  action?: string;
}) {
  const { name, before, onSave, onCancel, action } = props;
  const text = stored<string | null>(`draft.edit.${name}`, null);
  const value = text.value ?? before;
  const save = () => {
    if (value === before || !value.trim()) return;
    text.value = null;
    onSave(value);
  };
  const cancel = () => {
    text.value = null;
    onCancel();
  };
  return (
    <div class="editor">
      <textarea
        class="answer-text"
        aria-label={t("edit.label")}
        rows={Math.min(14, Math.max(3, Math.ceil(value.length / 60)))}
        value={value}
        ref={focusOnce}
        onInput={(event) => (text.value = event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.isComposing) return;
          if (event.key === "Escape") cancel();
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
            event.preventDefault();
            event.stopPropagation();
            save();
          }
        }}
      />
      {value !== before && <WordDiff before={before} after={value} />}
      <div class="row end">
        <button type="button" class="quiet" onClick={cancel}>
          {t("cancel")}
        </button>
        <button type="button" class="primary" disabled={value === before || !value.trim()} onClick={save}>
          {action ?? t("edit.save")}
        </button>
      </div>
    </div>
  );
}

function focusOnce(element: HTMLTextAreaElement | null): void {
  if (element && !element.dataset.focused) {
    element.dataset.focused = "yes";
    element.focus();
    element.setSelectionRange(element.value.length, element.value.length);
  }
}

/** A remark in free words; it can also be said as the next turn, so that the model tries again. */
export function Remark(props: {
  name: string;
  onSave: (text: string) => void;
  onRetry?: (text: string) => void;
  onCancel: () => void;
}) {
  const text = draft(`remark.${props.name}`);
  const done = (then: (text: string) => void) => {
    const said = text.value.trim();
    if (!said) return;
    text.value = "";
    then(said);
  };
  return (
    <form
      class="remark"
      onSubmit={(event) => {
        event.preventDefault();
        done(props.onSave);
      }}
    >
      <textarea
        rows={2}
        placeholder={t("remark.placeholder")}
        aria-label={t("remark")}
        value={text.value}
        ref={focusOnce}
        onInput={(event) => (text.value = event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.isComposing) return;
          if (event.key === "Escape") props.onCancel();
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) done(props.onSave);
        }}
      />
      <div class="row end">
        {props.onRetry && (
          <button
            type="button"
            class="quiet"
            disabled={!text.value.trim()}
            onClick={() => done(props.onRetry!)}
          >
            <Icon name="again" size={16} /> {t("remark.retry")}
          </button>
        )}
        <button type="submit" class="primary" disabled={!text.value.trim()}>
          {t("remark.save")}
        </button>
      </div>
    </form>
  );
}
