// The small world of the built-in model: its facts and what one may ask about it.
import { effect, signal } from "@preact/signals";
import { get } from "./api";
import type { World } from "./contract";
import { language, t } from "./i18n";
import { model } from "./session";

export const world = signal<World | null>(null);

effect(() => {
  const inLanguage = language.value;
  if (!model.value?.builtin) {
    world.value = null;
    return;
  }
  get<World>(`/api/world?language=${inLanguage}`).then(
    (found) => {
      // The language may have changed while the town was on its way.
      if (inLanguage === language.value) world.value = found;
    },
    () => {
      world.value = null;
    },
  );
});

/** Questions or beginnings to try, drawn anew for each `round`. */
export function suggestions(round: number, count: number): string[] {
  const all = world.value?.questions ?? beginnings();
  return Array.from(
    { length: Math.min(count, all.length) },
    (_, index) => all[(round * count + index) % all.length]!,
  );
}

function beginnings(): string[] {
  if (model.value?.languages?.[0] === "zh" || (model.value && !model.value.languages?.includes("en")))
    return ["春眠不觉晓", "床前明月光", "山中"];
  return model.value?.chat === false
    ? ["Once upon a time", "One morning, a little bear", "The old lighthouse"]
    : [t("suggest.1"), t("suggest.2"), t("suggest.3")];
}
