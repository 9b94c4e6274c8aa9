// People as the screen of annotators lists them: who needs a look first, in the order that was asked for.
import type { Annotator } from "./contract";
import { t, word } from "./i18n";

export const ORDERS = ["attention", "judgments", "reliability", "name"] as const;
export type Order = (typeof ORDERS)[number];

/** Drift and straight-lining ask for a look, unless it was had: an excluded person waits at the end. */
const attention = (one: Annotator): number =>
  one.excluded ? -1 : Number(one.drift) + Number(one.straight_lining !== null);

const byName = (a: Annotator, b: Annotator) => a.name.localeCompare(b.name);
const byJudgments = (a: Annotator, b: Annotator) => b.judgments - a.judgments || byName(a, b);
const byReliability = (a: Annotator, b: Annotator) =>
  (a.reliability ?? Number.POSITIVE_INFINITY) - (b.reliability ?? Number.POSITIVE_INFINITY) ||
  byJudgments(a, b);

const COMPARE: Record<Order, (a: Annotator, b: Annotator) => number> = {
  attention: (a, b) => attention(b) - attention(a) || byJudgments(a, b),
  judgments: byJudgments,
  reliability: byReliability,
  name: byName,
};

/** Those whose name holds `search`, in order; least reliable first, whoever is not known yet last. */
export function listed(people: Annotator[], search: string, order: Order): Annotator[] {
  const wanted = search.trim().toLowerCase();
  return people.filter((one) => one.name.toLowerCase().includes(wanted)).sort(COMPARE[order]);
}

/** What was asked, in words: "preference", "rating 1-5", "ranking of 3" as the server calls them. */
export function questionName(question: string): string {
  const scale = /^rating (-?\d+)-(-?\d+)$/.exec(question);
  if (scale)
    return scale[1] === "0" && scale[2] === "1"
      ? t("kind.thumb")
      : `${t("kind.rating")} ${scale[1]}–${scale[2]}`;
  const ranking = /^ranking of (\d+)$/.exec(question);
  return ranking ? t("kind.ranking_of", { n: Number(ranking[1]) }) : word("kind", question);
}

/** A run of equal answers in words. */
export function runOf({ question, answer, length }: NonNullable<Annotator["straight_lining"]>): string {
  const said = question === "preference" ? word("vote", answer) : answer;
  return t("trait.straight_lining_run", { what: `${questionName(question)}: ${said}`, n: length });
}
