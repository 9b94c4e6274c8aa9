import { describe, expect, it } from "vitest";
import { difference, words } from "../src/lib/difference";

const joined = (before: string, after: string, without: "added" | "removed") =>
  difference(before, after)
    .filter((piece) => piece.change !== without)
    .map((piece) => piece.text)
    .join("");

const pairs: [string, string][] = [
  ["It costs six coins.", "It costs seven coins, I am afraid."],
  ["苹果派每块六枚铜币。", "苹果派每块七枚铜币。"],
  ["", "new"],
  ["gone", ""],
  ["same", "same"],
  ["a  b\n\nc", "a b\nc 👩‍🌾"],
];

describe("difference", () => {
  it.each(pairs)("%j to %j loses nothing of either", (before, after) => {
    expect(joined(before, after, "added")).toBe(before);
    expect(joined(before, after, "removed")).toBe(after);
  });
  it("changes words and no more, in English and Chinese", () => {
    expect(
      difference("It costs six coins.", "It costs seven coins.").filter((piece) => piece.change !== "same"),
    ).toEqual([
      { text: "six", change: "removed" },
      { text: "seven", change: "added" },
    ]);
    const changed = difference("苹果派每块六枚铜币。", "苹果派每块七枚铜币。").filter(
      (piece) => piece.change !== "same",
    );
    expect(changed.map((piece) => piece.text.length).every((length) => length <= 2)).toBe(true);
  });
  it("takes neighboring words out together and puts the new ones in together", () => {
    expect(
      difference("No basket? Now shoo.", "No basket? Good day!").filter((piece) => piece.change !== "same"),
    ).toEqual([
      { text: "Now shoo.", change: "removed" },
      { text: "Good day!", change: "added" },
    ]);
  });
  it("cuts text into pieces that are the text again", () => {
    for (const text of pairs.flat()) expect(words(text).join("")).toBe(text);
    expect(words("铜币很多").length).toBeGreaterThan(1);
  });
});
