// Which keys there are, and where g and a letter lead.
import { useSignal } from "@preact/signals";
import { t } from "../lib/i18n";
import { currentShortcuts, useKeys } from "../lib/keys";
import { go } from "../lib/router";
import { reachable } from "../lib/screens";
import { Key } from "./basics";
import { Dialog } from "./dialog";

export function Going({ onDone }: { onDone: () => void }) {
  const screens = reachable();
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

export function Help({ onClose }: { onClose: () => void }) {
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
