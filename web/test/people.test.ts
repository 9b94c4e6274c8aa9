import { beforeEach, expect, test } from "vitest";
import type { Annotator } from "../src/lib/contract";
import { language } from "../src/lib/i18n";
import { listed, type Order, questionName, runOf } from "../src/lib/people";

const person = (name: string, more: Partial<Annotator> = {}): Annotator =>
  ({
    name,
    judgments: 1,
    reliability: null,
    drift: false,
    straight_lining: null,
    excluded: null,
    ...more,
  }) as Annotator;

const PEOPLE = [
  person("ben", { judgments: 5, reliability: 0.9 }),
  person("Chen Yu", { judgments: 9, reliability: 0.4, drift: true }),
  person("anna", { judgments: 5 }),
  person("dora", {
    judgments: 7,
    reliability: 0.2,
    drift: true,
    excluded: { reason: "asleep", since: "", by: "anna" },
  }),
  person("egon", {
    judgments: 2,
    reliability: 0.3,
    drift: true,
    straight_lining: { question: "preference", answer: "first", length: 12 },
  }),
];

beforeEach(() => {
  language.value = "en";
});

test.each<[Order, string[]]>([
  ["attention", ["egon", "Chen Yu", "anna", "ben", "dora"]],
  ["judgments", ["Chen Yu", "dora", "anna", "ben", "egon"]],
  ["reliability", ["dora", "egon", "Chen Yu", "ben", "anna"]],
  ["name", ["anna", "ben", "Chen Yu", "dora", "egon"]],
])("by %s", (order, names) => {
  expect(listed(PEOPLE, "", order).map((one) => one.name)).toEqual(names);
});

test("who is looked for is found by a part of the name, in any case", () => {
  expect(listed(PEOPLE, " YU ", "name").map((one) => one.name)).toEqual(["Chen Yu"]);
  expect(listed(PEOPLE, "nobody", "name")).toEqual([]);
});

test("what the server calls a question has a name in both languages", () => {
  expect(["preference", "rating 0-1", "rating 1-5", "rating -3-3", "ranking of 3"].map(questionName)).toEqual(
    ["Choice", "Thumb", "Rating 1–5", "Rating -3–3", "Ranking of 3"],
  );
  language.value = "zh";
  expect(questionName("rating 1-5")).toBe("评分 1–5");
});

test("a run of equal answers", () => {
  expect(runOf({ question: "preference", answer: "first", length: 12 })).toBe(
    "Choice: Left is better, 12 times in a row",
  );
  expect(runOf({ question: "rating 1-5", answer: "5", length: 30 })).toBe("Rating 1–5: 5, 30 times in a row");
});
