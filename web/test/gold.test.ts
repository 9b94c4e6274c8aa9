import { expect, test } from "vitest";
import { readGold } from "../src/lib/gold";

test("a table as a spreadsheet copies it", () => {
  expect(readGold("Who bakes?\tRuth does.\tNobody.\r\n\n 几点了？\t三点\t不知道 \n")).toEqual({
    gold: [
      { prompt: "Who bakes?", better: "Ruth does.", worse: "Nobody." },
      { prompt: "几点了？", better: "三点", worse: "不知道" },
    ],
    wrong: null,
  });
});

test.each(["a\tb", "a\tb\tc\td", "a\t\tc", "a\tb\tb", "a b c"])("%j is no gold question", (line) => {
  expect(readGold(`q\tyes\tno\n${line}`)).toEqual({
    gold: [{ prompt: "q", better: "yes", worse: "no" }],
    wrong: 2,
  });
});
