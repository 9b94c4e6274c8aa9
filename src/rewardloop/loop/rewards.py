"""The reward of a run: learned anew from everything people have said so far, or given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rewardloop.loop.seeds import derive_seed
from rewardloop.reward.features import EncoderFeatures, FeatureExtractor
from rewardloop.reward.fitting import LinearHeads, fit_head
from rewardloop.reward.model import AnnotatorTraits, RewardModel
from rewardloop.types import Feedback, Preference, RewardSource, Rollout

# What a reward model is beside its heads and its people.
_NUMBERS = tuple(item.name for item in fields(RewardModel) if item.name not in ("scorer", "annotators"))


class Rewards(Protocol):
    """A reward source that may be refitted between iterations."""

    @property
    def source(self) -> RewardSource | None:
        """None while nobody has said anything."""

    @property
    def metrics(self) -> dict[str, float]:
        """What is known of the present version."""

    def refit(self, feedback: Sequence[Feedback], pool: Rollout) -> None:
        """Learn from all `feedback`; mean 0 and variance 1 on `pool`, completions of the reference."""

    def tensors(self) -> dict[str, Tensor]:
        """The present version, for a generation. What is only remembered for speed is forgotten here: features
        depend in their last bits on which texts were computed together, and a resumed run remembers none.
        """

    def restore(self, state: dict[str, Tensor], heard: int) -> None:
        """Go on with a version stored after `heard` judgments."""


@dataclass
class LearnedReward:
    """Heads on the frozen reference trunk, fitted from scratch to all feedback at every round: no forgetting."""

    extractor: FeatureExtractor
    seed: int
    source: RewardModel | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    alike: bool = False  # take everybody for ordinary: what benchmarks/robustness.py compares with
    _heard: int = 0

    @property
    def annotators(self) -> Mapping[str, AnnotatorTraits]:
        """What was found about everybody who has a name, the least trusted first; empty for a single person."""
        return self.source.annotators if self.source is not None else {}

    def refit(self, feedback: Sequence[Feedback], pool: Rollout) -> None:
        if not feedback:
            return
        foresight = self._pair_accuracy(feedback[self._heard :])
        self._heard = len(feedback)
        prompts, texts = [c.prompt for c in pool.completions], [c.text for c in pool.completions]
        seed = derive_seed(self.seed, "heads", len(feedback)) % 2**31
        fitted = fit_head(feedback, self.extractor, seed=seed, alike=self.alike)
        # No pessimism: at these numbers of events the heads disagree about everything, and a penalty on that costs
        # half of the correlation with the gold judge (docs/reward-models.md). Disagreement is watched instead.
        fitted = replace(fitted, uncertainty_weight=0.0)
        self.source = fitted.standardize(fitted.score(prompts, texts))
        self.metrics = {"reward/disagreement": float(self.source.disagreement(prompts, texts).mean())}
        if foresight is not None:
            self.metrics["reward/pair_accuracy"] = foresight
        if self.annotators:
            weights = [traits.weight for traits in self.annotators.values()]
            self.metrics["people/worst_weight"] = min(weights)
            self.metrics["people/weight_mean"] = float(np.mean(weights))

    def tensors(self) -> dict[str, Tensor]:
        self.extractor.memory.rows.clear()
        if self.source is None:
            return {}
        assert isinstance(self.source.scorer, LinearHeads)
        numbers = [getattr(self.source, name) for name in _NUMBERS]
        people = _pack_people(self.annotators) if self.annotators else {}
        return self.source.scorer.tensors() | people | {"numbers": torch.tensor(numbers, dtype=torch.float64)}

    def restore(self, state: dict[str, Tensor], heard: int) -> None:
        self._heard = heard
        if state:
            heads = {name: value for name, value in state.items() if name not in ("numbers", *_PEOPLE)}
            numbers = dict(zip(_NUMBERS, state["numbers"].tolist(), strict=True))
            people = _unpack_people(state) if _PEOPLE[0] in state else {}
            self.source = RewardModel(LinearHeads(self.extractor, **heads), **numbers, annotators=people)

    def _pair_accuracy(self, fresh: Sequence[Feedback]) -> float | None:
        """How the version before orders choices it has not seen: an honest look, taken before it learns from them."""
        pairs = [f for f in fresh if isinstance(f, Preference) and f.choice in ("first", "second")]
        if self.source is None or not pairs:
            return None
        logits_B = self.source.choice_logits(
            [p.prompt for p in pairs], [p.first for p in pairs], [p.second for p in pairs]
        )
        chosen_B = np.array([p.choice == "first" for p in pairs])
        return float(np.mean((logits_B > 0) == chosen_B))


_PEOPLE = ("people_names", "people_traits")


def _pack_people(annotators: Mapping[str, AnnotatorTraits]) -> dict[str, Tensor]:
    """Names as the bytes of a JSON list, and a row of traits for each."""
    names = json.dumps(list(annotators), ensure_ascii=False).encode()
    traits = [astuple(traits) for traits in annotators.values()]
    return {
        _PEOPLE[0]: torch.tensor(list(names), dtype=torch.uint8),
        _PEOPLE[1]: torch.tensor(traits, dtype=torch.float64),
    }


def _unpack_people(state: Mapping[str, Tensor]) -> dict[str, AnnotatorTraits]:
    names, rows = json.loads(bytes(state[_PEOPLE[0]].tolist())), state[_PEOPLE[1]].tolist()
    columns = [item.name for item in fields(AnnotatorTraits)]
    found = {name: dict(zip(columns, row, strict=True)) for name, row in zip(names, rows, strict=True)}
    return {name: AnnotatorTraits(**row | {"judgments": int(row["judgments"])}) for name, row in found.items()}


@dataclass
class GivenReward:
    """A reward that was learned before: standardized once on the reference's completions, never refitted."""

    source: RewardModel
    metrics: dict[str, float] = field(default_factory=dict)

    def refit(self, feedback: Sequence[Feedback], pool: Rollout) -> None:
        scores_B = self.source.score([c.prompt for c in pool.completions], [c.text for c in pool.completions])
        self.source = self.source.standardize(scores_B)

    def tensors(self) -> dict[str, Tensor]:
        scorer = self.source.scorer
        if isinstance(scorer, LinearHeads) and isinstance(scorer.extractor, FeatureExtractor | EncoderFeatures):
            scorer.extractor.memory.rows.clear()
        return {"numbers": torch.tensor([self.source.offset, self.source.scale], dtype=torch.float64)}

    def restore(self, state: dict[str, Tensor], heard: int) -> None:
        offset, scale = state["numbers"].tolist()
        self.source = replace(self.source, offset=offset, scale=scale)
