// Whether tokens are tinted, and the scale that all answers of this tab share.
import { signal } from "@preact/signals";
import type { Token } from "./contract";
import { stored } from "./stored";
import { RewardScale } from "./tint";

const scale = new RewardScale();
export const rewardScale = signal(scale.value);
export const tinting = stored<boolean>("tint", true);

/** Lets a finished answer widen or narrow the scale; during an answer it stands still. */
export function learnScale(tokens: readonly Token[]): void {
  if (scale.add(tokens.map((token) => token.reward))) rewardScale.value = scale.value;
}
