// The order into which somebody puts answers: a place for each, 1 is best; null for one without a place yet.

export type Places = readonly (number | null)[];

export const MOST_ANSWERS = 4;
export const LETTERS = ["A", "B", "C", "D"] as const;

export const noPlaces = (count: number): Places => Array.from({ length: count }, () => null);

/** Gives answer `at` a place; the place that it has already is taken from it. */
export const put = (places: Places, at: number, place: number): Places =>
  places.map((old, index) => (index !== at ? old : old === place ? null : place));

/** Gives answer `at` the first free place, or `tied` the one before it; one that has a place loses it. */
export function putNext(places: Places, at: number, tied: boolean): Places {
  const free = places.findIndex((_, index) => !places.includes(index + 1)) + 1;
  return put(places, at, places[at] ?? (tied ? Math.max(1, free - 1) : free));
}

/** The ranks as they are sent, ties equal and without gaps; null while one has no place. */
export function ranksOf(places: Places): number[] | null {
  if (places.includes(null)) return null;
  const steps = [...new Set(places as number[])].sort((a, b) => a - b);
  return (places as number[]).map((place) => steps.indexOf(place) + 1);
}

/** The numbers below `count` in random order: where an answer stands must say nothing about it. */
export function shuffled(count: number, random: () => number = Math.random): number[] {
  const order = Array.from({ length: count }, (_, index) => index);
  for (let last = count - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    [order[last], order[other]] = [order[other]!, order[last]!];
  }
  return order;
}
