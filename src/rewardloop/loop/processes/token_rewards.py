"""The immediate reward of tokens while they are spoken.

The reference trunk reads what was said, a few tokens at a time, and the potential says how much better the answer is
expected to become with each of them. Where nothing was learned yet, tokens have the model's own *typicality*
(`evaluate.typicality`): how usual they are, not how good.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

import torch

from rewardloop.evaluate.typicality import expectations
from rewardloop.models.language_model import LanguageModel
from rewardloop.models.packed import forward_completions
from rewardloop.reward.potential import Potential, prefix_states

STRIDE: Final = 4  # tokens that are read together; a reward is late by this many tokens at most


class RewardStream(Protocol):
    """The rewards of one completion."""

    def extend(self, token_id: int, *, last: bool) -> tuple[float, ...]:
        """Rewards that have become known with this token, in the order of tokens; all of them with the last."""


class TokenRewarder(Protocol):
    """A source of immediate rewards."""

    @property
    def version(self) -> str:
        """Stamps every reward; never mixed within an answer."""

    def begin(self, prompt_ids: tuple[int, ...]) -> RewardStream:
        """A stream for a completion of this prompt."""


@dataclass(frozen=True, eq=False)
class Foresight:
    """r_t = phi(s_{t+1}) - phi(s_t), read from the frozen reference. The last token has no residual: nobody has
    judged this answer yet."""

    reference: LanguageModel
    potential: Potential
    version: str

    def begin(self, prompt_ids: tuple[int, ...]) -> RewardStream:
        return _Reading(prompt_ids, self._rewards)

    def _rewards(self, prompt_ids: tuple[int, ...], token_ids: list[int]) -> list[float]:
        trunk = forward_completions(self.reference.model, [prompt_ids], [token_ids])
        states_BT1D = prefix_states(trunk.hidden_BT1D, trunk.logprobs_BT)
        rewards: list[float] = self.potential.values(states_BT1D)[0].diff().tolist()
        return rewards


@dataclass(frozen=True, eq=False)
class Typicality:
    """r_t = log pi(a_t | s_t) + H(pi(. | s_t)) under the model itself."""

    lm: LanguageModel
    version: str = "typicality"

    def begin(self, prompt_ids: tuple[int, ...]) -> RewardStream:
        return _Reading(prompt_ids, self._rewards)

    def _rewards(self, prompt_ids: tuple[int, ...], token_ids: list[int]) -> list[float]:
        logprobs_T, entropy_T = expectations(self.lm, prompt_ids, tuple(token_ids))
        rewards: list[float] = (logprobs_T + entropy_T).tolist()
        return rewards


class _Rewards(Protocol):
    def __call__(self, prompt_ids: tuple[int, ...], token_ids: list[int]) -> list[float]: ...


@dataclass(eq=False)
class _Reading:
    prompt_ids: tuple[int, ...]
    rewards: _Rewards
    token_ids: list[int] = field(default_factory=list)
    known: int = 0

    @torch.no_grad()
    def extend(self, token_id: int, *, last: bool) -> tuple[float, ...]:
        self.token_ids.append(token_id)
        if not last and len(self.token_ids) - self.known < STRIDE:
            return ()
        fresh = self.rewards(self.prompt_ids, self.token_ids)[self.known :]
        self.known = len(self.token_ids)
        return tuple(fresh)
