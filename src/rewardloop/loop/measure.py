"""Measuring on held-out prompts: the policy against the untouched reference, by a judge that nothing was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rewardloop.evaluate.texts import rep_n
from rewardloop.evaluate.winrate import win_outcomes, win_rate_interval
from rewardloop.loop.recipe import Recipe
from rewardloop.loop.seeds import derive_seed
from rewardloop.rollout.engine import Engine
from rewardloop.rollout.sampling import sample_rollout
from rewardloop.types import Completion, Prompt, RewardSource

# Share of answers with each defect, by name; only a world whose truth is known can tell.
DefectCounter = Callable[[Sequence[Completion]], Mapping[str, float]]


@dataclass(frozen=True, eq=False)
class Measurement:
    """One look at the policy."""

    metrics: dict[str, float]
    completions: tuple[Completion, ...]
    judged_B: np.ndarray
    reference: tuple[Completion, ...]
    reference_judged_B: np.ndarray


class Measurer:
    """Holds the held-out prompts, the reference's answers to them, and the judge."""

    def __init__(
        self, prompts: Sequence[Prompt], judge: RewardSource, recipe: Recipe, defects: DefectCounter | None = None
    ) -> None:
        self.prompts = tuple(prompts)
        self.judge = judge
        self.recipe = recipe
        self.defects = defects
        self.last: Measurement | None = None
        self._reference: tuple[Completion, ...] = ()
        self._reference_judged_B = np.zeros(0)

    def prepare(self, reference_engine: Engine) -> None:
        """Sample and judge the reference's answers: what every later look is compared with."""
        self._reference = self._answers(reference_engine, "reference", 0)
        self._reference_judged_B = _score(self.judge, self._reference)

    def measure(self, engine: Engine, proxy: RewardSource | None, look: int) -> Measurement:
        """Fresh answers of the policy in `engine`, judged, compared with the reference's prompt by prompt.

        `proxy` is the reward that was trained on: where it rises and the judge does not, it is being gamed.
        """
        completions = self._answers(engine, "look", look)
        judged_B = _score(self.judge, completions)
        metrics = _compare(judged_B, self._reference_judged_B) | {
            "text/repetition": float(np.mean([rep_n(c.text, 3) for c in completions])),
            "text/length": float(np.mean([len(c.text) for c in completions])),
        }
        if proxy is not None:
            metrics["held_out/proxy"] = float(_score(proxy, completions).mean())
        if self.defects is not None:
            metrics |= {f"held_out/{name}": share for name, share in self.defects(completions).items()}
        self.last = Measurement(metrics, completions, judged_B, self._reference, self._reference_judged_B)
        return self.last

    def _answers(self, engine: Engine, purpose: str, look: int) -> tuple[Completion, ...]:
        sampling = self.recipe.sampling
        return sample_rollout(
            engine,
            self.prompts,
            group_size=1,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            seed=derive_seed(self.recipe.seed, purpose, look),
        ).completions


def _score(judge: RewardSource, completions: Sequence[Completion]) -> np.ndarray:
    return judge.score([c.prompt for c in completions], [c.text for c in completions])


def _compare(judged_B: np.ndarray, reference_B: np.ndarray) -> dict[str, float]:
    gains_B = judged_B - reference_B
    margin = 1.96 * gains_B.std(ddof=1) / np.sqrt(len(gains_B))
    win_rate, low, high = win_rate_interval(win_outcomes(judged_B, reference_B))
    return {
        "held_out/reward": float(judged_B.mean()),
        "held_out/gain": float(gains_B.mean()),
        "held_out/gain_low": float(gains_B.mean() - margin),
        "held_out/gain_high": float(gains_B.mean() + margin),
        "held_out/win_rate": win_rate,
        "held_out/win_rate_low": low,
        "held_out/win_rate_high": high,
    }
