"""Measuring on held-out prompts: the policy against the untouched reference, by a judge that nothing was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rewardloop.evaluate.comparison import FindDefects, Judged, judge_answers
from rewardloop.evaluate.texts import rep_n
from rewardloop.evaluate.winrate import win_outcomes, win_rate_interval
from rewardloop.loop.recipe import Recipe
from rewardloop.loop.seeds import derive_seed
from rewardloop.reward.calibration import estimate_mean
from rewardloop.reward.model import FEWEST_REFERENCE_SCORES, RewardModel
from rewardloop.rollout.engine import Engine
from rewardloop.rollout.sampling import sample_rollout
from rewardloop.types import Prompt, RewardSource


@dataclass(frozen=True, eq=False)
class Measurement:
    """One look at the policy: its answers and the reference's to the same prompts, judged."""

    metrics: dict[str, float]
    after: Judged
    before: Judged


class Measurer:
    """Holds the held-out prompts, the reference's answers to them, and the judge."""

    def __init__(
        self,
        prompts: Sequence[Prompt],
        judge: RewardSource,
        recipe: Recipe,
        find_defects: FindDefects | None = None,
    ) -> None:
        self.prompts = tuple(prompts)
        self.judge = judge
        self.recipe = recipe
        self.find_defects = find_defects
        self.last: Measurement | None = None
        self._reference: Judged | None = None

    def prepare(self, reference_engine: Engine) -> None:
        """Sample and judge the reference's answers: what every later look is compared with.

        A learned judge has no unit of its own: it is put on the scale of the reference's answers, as the reward is.
        """
        self._reference = self._answers(reference_engine, "reference", 0)
        scores_B = self._reference.scores_B
        if isinstance(self.judge, RewardModel) and len(scores_B) >= FEWEST_REFERENCE_SCORES:
            self.judge = self.judge.standardize(scores_B)
            self._reference = judge_answers(self._reference.completions, self.judge, self.find_defects)

    @property
    def reference(self) -> Judged:
        """The reference's answers; there after `prepare`."""
        assert self._reference is not None, "prepare() comes first"
        return self._reference

    def measure(self, engine: Engine, proxy: RewardSource | None, look: int) -> Measurement:
        """Fresh answers of the policy in `engine`, judged, compared with the reference's prompt by prompt.

        `proxy` is the reward that was trained on: where it rises and the judge does not, it is being gamed.
        """
        after = self._answers(engine, "look", look)
        texts = [c.text for c in after.completions]
        metrics = _compare(after, self.reference) | {
            "text/repetition": float(np.mean([rep_n(text, 3) for text in texts])),
            "text/length": float(np.mean([len(text) for text in texts])),
        }
        if proxy is not None:
            metrics["held_out/proxy"] = float(proxy.score(after.prompts, texts).mean())
        metrics |= {f"held_out/{name}": float(present_B.mean()) for name, present_B in after.defects.items()}
        self.last = Measurement(metrics, after, self.reference)
        return self.last

    def _answers(self, engine: Engine, purpose: str, look: int) -> Judged:
        sampling = self.recipe.sampling
        rollout = sample_rollout(
            engine,
            self.prompts,
            group_size=1,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            seed=derive_seed(self.recipe.seed, purpose, look),
        )
        return judge_answers(rollout.completions, self.judge, self.find_defects)


def _compare(after: Judged, before: Judged) -> dict[str, float]:
    gain = estimate_mean(after.scores_B - before.scores_B, after.prompts)
    win_rate, low, high = win_rate_interval(win_outcomes(after.scores_B, before.scores_B))
    return {
        "held_out/reward": float(after.scores_B.mean()),
        "held_out/gain": gain.value,
        "held_out/gain_low": gain.low,
        "held_out/gain_high": gain.high,
        "held_out/win_rate": win_rate,
        "held_out/win_rate_low": low,
        "held_out/win_rate_high": high,
    }
