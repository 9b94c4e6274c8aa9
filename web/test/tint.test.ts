import { describe, expect, it } from "vitest";
import { RewardScale, shade, tintClass } from "../src/lib/tint";

describe("shade", () => {
  it("steps at 8, 30, 55 and 80 percent of the scale, by hand", () => {
    const rewards = [-3, -1.6, -1.1, -0.6, -0.16, -0.15, 0, 0.15, 0.16, 0.59, 0.6, 1.09, 1.1, 1.59, 1.6, 9];
    expect(rewards.map((reward) => shade(reward, 2))).toEqual([
      -4, -4, -3, -2, -1, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4,
    ]);
  });
  it("is none for what has no number", () => {
    for (const nothing of [null, undefined, Number.NaN, Number.POSITIVE_INFINITY])
      expect(shade(nothing, 1)).toBe(0);
  });
  it("is odd and grows with the reward", () => {
    let before = -4;
    for (let reward = -1; reward <= 1; reward += 0.01) {
      const found = shade(reward, 1);
      expect(found).toBeGreaterThanOrEqual(before);
      expect(found + shade(-reward, 1)).toBe(0);
      before = found;
    }
  });
  it("has nine classes", () => {
    const classes = new Set(Array.from({ length: 401 }, (_, index) => tintClass((index - 200) / 100, 1)));
    expect(classes.size).toBe(9);
    expect(tintClass(0.9, 1)).toBe("tint tint-up-4");
    expect(tintClass(-0.1, 1)).toBe("tint tint-down-1");
  });
});

describe("the scale of colors", () => {
  it("is the 95 % quantile of the rewards seen, so that an outlier bleaches nothing", () => {
    const scale = new RewardScale();
    const rewards = Array.from({ length: 99 }, (_, index) => ((index % 2 ? 1 : -1) * (index + 1)) / 100);
    expect(scale.add([...rewards, 1000, null])).toBe(true);
    expect(scale.value).toBeCloseTo(0.95);
  });
  it("stands still for a few rewards and for small changes", () => {
    const scale = new RewardScale();
    expect(scale.add([9, 9, 9])).toBe(false);
    expect(scale.value).toBe(0.5);
    const other = new RewardScale(1);
    expect(other.add(Array.from({ length: 50 }, () => 1.05))).toBe(false);
    expect(other.value).toBe(1);
  });
});
