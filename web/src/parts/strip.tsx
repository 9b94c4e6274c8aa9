// How far the newest judgment has come: saved - learned - live in v8.
import type { Status } from "../lib/contract";
import { t } from "../lib/i18n";
import { outbox, type Said, saidAbout } from "../lib/judgments";
import { Icon } from "./icon";

const REACHED: Record<Status, number> = {
  refused: 0,
  retracted: 0,
  sending: 0,
  waiting: 1,
  saved: 1,
  settled: 1,
  learned: 2,
  live: 3,
};

export function Strip({ address }: { address: string | null }) {
  const [completion_id, choice] = address?.split("/") ?? [];
  const one = completion_id
    ? saidAbout({ completion_id, choice: Number(choice) }).findLast((said) => said.status !== "retracted")
    : undefined;
  if (!one) return null;
  return <Steps one={one} />;
}

export function Steps({ one }: { one: Said }) {
  if (one.status === "refused")
    return (
      <p class="strip refused" role="alert">
        <Icon name="alarm" size={16} /> {t("strip.refused", { why: one.why ?? "" })}
      </p>
    );
  if (one.status === "sending")
    return (
      <p class="strip sending">
        {outbox.letters.value.some((letter) => letter.key === one.key && letter.tries)
          ? t("strip.kept")
          : t("strip.sending")}
      </p>
    );
  const reached = REACHED[one.status];
  const labels = [
    t("strip.saved"),
    t("strip.learned"),
    one.version ? t("strip.live_in", { version: one.version }) : t("strip.live"),
  ];
  return (
    <ol class="strip" aria-label={t("strip.label")}>
      {labels.map((label, index) => (
        <li
          key={index}
          class={index < reached ? "done" : ""}
          aria-current={index === reached - 1 ? "step" : undefined}
        >
          <i class="strip-dot" aria-hidden="true" />
          {label}
        </li>
      ))}
    </ol>
  );
}
