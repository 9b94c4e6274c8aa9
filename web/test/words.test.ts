import { describe, expect, it } from "vitest";
import { moveChoice, wordsOf } from "../src/lib/words";

const words = (text: string) => wordsOf(text, "en").map(({ start, end }) => text.slice(start, end));

describe("words", () => {
  it("are told apart in both languages, without the signs between them", () => {
    expect(words("Six coins, “Sir”; it's 3.5!")).toEqual(["Six", "coins", "Sir", "it's", "3.5"]);
    expect(words("您好！苹果").join("")).toBe("您好苹果");
    expect(words("fine 👩‍🌾")).toEqual(["fine", "👩‍🌾"]);
  });
  it("are chosen by keys, one or several, and never beyond the ends", () => {
    expect(moveChoice({ anchor: 1, head: 1 }, 4, "ArrowRight", false)).toEqual({ anchor: 2, head: 2 });
    expect(moveChoice({ anchor: 1, head: 1 }, 4, "ArrowLeft", true)).toEqual({ anchor: 1, head: 0 });
    expect(moveChoice({ anchor: 1, head: 0 }, 4, "ArrowLeft", true)).toEqual({ anchor: 1, head: 0 });
    expect(moveChoice({ anchor: 1, head: 3 }, 4, "ArrowRight", false)).toEqual({ anchor: 3, head: 3 });
    expect(moveChoice({ anchor: 1, head: 1 }, 4, "End", true)).toEqual({ anchor: 1, head: 3 });
    expect(moveChoice({ anchor: 1, head: 1 }, 4, "x", true)).toBeNull();
  });
});
