import { describe, expect, it } from "vitest";
import { noPlaces, type Places, put, putNext, ranksOf, shuffled } from "../src/lib/ranking";

const inTurn = (count: number, presses: [number, boolean?][]): Places =>
  presses.reduce((places, [at, tied]) => putNext(places, at, tied ?? false), noPlaces(count));

describe("a ranking", () => {
  it("takes the answers best first", () => {
    expect(inTurn(3, [[2], [0], [1]])).toEqual([2, 3, 1]);
  });
  it("lets answers share a place, and goes on behind them", () => {
    expect(inTurn(4, [[3], [1, true], [0], [2, true]])).toEqual([2, 1, 2, 1]);
    expect(inTurn(3, [[0, true]])).toEqual([1, null, null]);
  });
  it("takes the place of an answer that is put again, and fills it next", () => {
    expect(inTurn(3, [[0], [1], [0]])).toEqual([null, 2, null]);
    expect(inTurn(3, [[0], [1], [0], [2], [0]])).toEqual([3, 2, 1]);
  });
  it("gives a place and takes it away when it is given again", () => {
    expect(put([null, 2], 0, 1)).toEqual([1, 2]);
    expect(put([1, 2], 0, 1)).toEqual([null, 2]);
  });
  it("is sent without gaps once every answer has a place", () => {
    expect(ranksOf([1, null, 2])).toBeNull();
    expect(ranksOf([4, 1, 1])).toEqual([2, 1, 1]);
  });
  it("shows every order of the answers equally often", () => {
    // Each of the 24 orders comes from as many of the 4 * 3 * 2 equally likely draws.
    const seen = new Set<string>();
    for (let a = 0; a < 4; a++)
      for (let b = 0; b < 3; b++)
        for (let c = 0; c < 2; c++) {
          const draws = [(a + 0.5) / 4, (b + 0.5) / 3, (c + 0.5) / 2];
          seen.add(shuffled(4, () => draws.shift()!).join());
        }
    expect(seen.size).toBe(24);
  });
});
