import { describe, expect, it } from "vitest";
import { findPart } from "../src/lib/parts";

describe("findPart", () => {
  it("finds what is selected where it is shown, without the blanks around it", () => {
    expect(findPart("six coins, six jars", " six ", 10)).toEqual({ start: 11, end: 14 });
    expect(findPart("six coins, six jars", "six", 0)).toEqual({ start: 0, end: 3 });
  });
  it("counts characters as the server does", () => {
    const text = "👩‍🌾 says 六枚 coins";
    const part = findPart(text, "六枚", text.indexOf("六枚"))!;
    expect([...text].slice(part.start, part.end).join("")).toBe("六枚");
    expect(part.start).toBeLessThan(text.indexOf("六枚"));
  });
  it("finds words that Markdown moved where they stand once, and gives up where they stand twice", () => {
    expect(findPart("It is **true** here", "true", 6)).toEqual({ start: 8, end: 12 });
    expect(findPart("**no** and no", "no", 3)).toBeNull();
    expect(findPart("abc", "xyz", 0)).toBeNull();
    expect(findPart("abc", "  ", 0)).toBeNull();
  });
});
