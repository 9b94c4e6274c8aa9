// Rewards as nine classes, four shades each of orange and blue around none; blue and orange are told apart with
// every kind of color vision, and the underline tells them without any.

export type Shade = -4 | -3 | -2 | -1 | 0 | 1 | 2 | 3 | 4;

// Shares of the scale at which a shade begins. Below the first a token stays plain.
const STEPS = [0.08, 0.3, 0.55, 0.8];
const REMEMBERED = 2_000;
const FIRST_SCALE = 0.5;

/** The shade of `reward`, where `scale` is the |reward| of full color. */
export function shade(reward: number | null | undefined, scale: number): Shade {
  if (reward == null || !Number.isFinite(reward)) return 0;
  const share = Math.abs(reward) / scale;
  const level = STEPS.filter((step) => share >= step).length;
  return (reward < 0 && level ? -level : level) as Shade;
}

export function tintClass(reward: number | null | undefined, scale: number): string {
  const level = shade(reward, scale);
  if (level === 0) return "tint tint-0";
  return `tint tint-${level > 0 ? "up" : "down"}-${Math.abs(level)}`;
}

/** The |reward| that gets full color: the 95 % quantile of those seen, so that one outlier does not bleach the rest. */
export class RewardScale {
  #seen: number[] = [];

  constructor(public value = FIRST_SCALE) {}

  /** Takes in the rewards of a finished answer; returns whether the scale moved by a tenth or more. */
  add(rewards: Iterable<number | null>): boolean {
    for (const reward of rewards)
      if (reward != null && Number.isFinite(reward)) this.#seen.push(Math.abs(reward));
    this.#seen = this.#seen.slice(-REMEMBERED);
    if (this.#seen.length < 8) return false;
    const sorted = [...this.#seen].sort((a, b) => a - b);
    const found = Math.max(sorted[Math.floor(0.95 * (sorted.length - 1))]!, 1e-6);
    if (Math.abs(found - this.value) < 0.1 * this.value) return false;
    this.value = found;
    return true;
  }
}
