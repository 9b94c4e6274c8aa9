import { describe, expect, it } from "vitest";
import { translate } from "../src/lib/i18n";

const catalog = { plain: "Hello {name}", many: { one: "{n} window", other: "{n} windows" } };

describe("translate", () => {
  it("fills in what is given and leaves what is not", () => {
    expect(translate(catalog, "en", "plain", { name: "Ada" })).toBe("Hello Ada");
    expect(translate(catalog, "en", "plain")).toBe("Hello {name}");
  });
  it("does not fill in what a value brings", () => {
    expect(translate({ two: "{a} {b}" }, "en", "two", { a: "{b}", b: "x" })).toBe("{b} x");
  });
  it("chooses the plural form of the language", () => {
    expect(translate(catalog, "en", "many", { n: 1 })).toBe("1 window");
    expect(translate(catalog, "en", "many", { n: 0 })).toBe("0 windows");
    expect(translate(catalog, "en", "many", { n: 1200 })).toBe("1,200 windows");
    expect(translate({ many: { other: "{n} 扇窗" } }, "zh", "many", { n: 1 })).toBe("1 扇窗");
  });
  it("shows the key where there is no entry", () => {
    expect(translate(catalog, "en", "missing")).toBe("missing");
  });
});
