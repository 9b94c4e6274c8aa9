import { describe, expect, it } from "vitest";
import { splitSentences } from "../src/lib/sentences";

describe("splitSentences", () => {
  it("gives whole sentences and keeps the rest", () => {
    expect(splitSentences("It is six. Go early, be")).toEqual([["It is six."], "Go early, be"]);
    expect(splitSentences('He said "no!" Then')).toEqual([['He said "no!"'], "Then"]);
    expect(splitSentences("六枚铜币。请早些")).toEqual([["六枚铜币。"], "请早些"]);
    expect(splitSentences("A line\nand")).toEqual([["A line"], "and"]);
  });
  it("does not end a sentence within a number or before more may come", () => {
    expect(splitSentences("It costs 3.50 and")).toEqual([[], "It costs 3.50 and"]);
    expect(splitSentences("The end.")).toEqual([[], "The end."]);
  });
  it("reads every character once, however it is cut", () => {
    const text = "One. Two! 三。四？ Five";
    for (let cut = 0; cut <= text.length; cut++) {
      const [first, rest] = splitSentences(text.slice(0, cut));
      const [second, last] = splitSentences(rest + text.slice(cut));
      expect([...first, ...second, last].join("").replaceAll(" ", "")).toBe(text.replaceAll(" ", ""));
    }
  });
});
