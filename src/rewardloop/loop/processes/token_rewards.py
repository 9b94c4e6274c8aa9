"""The immediate reward of tokens while they are spoken: known as soon as the token is.

The reference trunk reads along, one token at a time over cached keys and values, and the potential says how much better
the answer is expected to become with each. Where nothing was learned yet, tokens have the model's own *typicality*
(`evaluate.typicality`): how usual they are, not how good.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from rewardloop.models.language_model import LanguageModel
from rewardloop.models.packed import TrunkPass
from rewardloop.reward.potential import Potential, prefix_states
from rewardloop.rollout.decoder import Decoder


class RewardStream(Protocol):
    """The rewards of one completion."""

    def extend(self, token_id: int) -> float:
        """The reward of this token, which follows those before it."""


class TokenRewarder(Protocol):
    """A source of immediate rewards."""

    @property
    def version(self) -> str:
        """Stamps every reward; never mixed within an answer."""

    def begin(self, prompt_ids: tuple[int, ...]) -> RewardStream:
        """A stream for a completion of this prompt."""


@dataclass(frozen=True, eq=False)
class Reference:
    """An untouched model that reads along. What is served may learn meanwhile; this does not.

    Its decoder is laid out once, when it is first needed, for everything that is ever read with it.
    """

    lm: LanguageModel

    @cached_property
    def decoder(self) -> Decoder:
        return Decoder(self.lm.model, torch.float32, self.lm.context)

    def read(self, prompt_ids: tuple[int, ...]) -> _Reader:
        """A reader that has read the prompt."""
        return _Reader(self.decoder, self.lm.context, prompt_ids)


@dataclass(frozen=True, eq=False)
class Foresight:
    """r_t = phi(s_{t+1}) - phi(s_t), read from the frozen reference. The last token has no residual: nobody has
    judged this answer yet."""

    reference: Reference
    potential: Potential
    version: str

    def begin(self, prompt_ids: tuple[int, ...]) -> RewardStream:
        return _Foreseen(self.reference.read(prompt_ids), self.potential)


@dataclass(frozen=True, eq=False)
class Typicality:
    """r_t = log pi(a_t | s_t) + H(pi(. | s_t)) under the model as it was given."""

    reference: Reference
    version: str = "typicality"

    def begin(self, prompt_ids: tuple[int, ...]) -> RewardStream:
        return _Typical(self.reference.read(prompt_ids))


class _Reader:
    """A model that reads along; what it knows after the newest token."""

    def __init__(self, decoder: Decoder, context: int, prompt_ids: tuple[int, ...]) -> None:
        self._decoder = decoder
        self._cache = decoder.new_cache(1, context)
        self._length = len(prompt_ids) - 1
        self.hidden_D: Tensor
        self.logprobs_V: Tensor
        if self._length:
            with torch.no_grad():
                decoder.prefill(self._cache, [torch.tensor(prompt_ids[:-1])], [[0]])
        self.read(prompt_ids[-1])

    @property
    def entropy(self) -> float:
        """Of the distribution of the next token, nats."""
        return float(-(self.logprobs_V.exp() * self.logprobs_V).nan_to_num().sum())

    @torch.no_grad()
    def read(self, token_id: int) -> None:
        device = self._decoder.device
        token_1, at_1 = torch.tensor([token_id], device=device), torch.tensor([self._length], device=device)
        self._length += 1
        states_1D = self._decoder.states(self._cache, token_1, at_1, self._length)
        self.hidden_D = states_1D[0]
        self.logprobs_V = torch.log_softmax(self._decoder.logits(states_1D)[0], dim=-1)


@dataclass(eq=False)
class _Foreseen:
    reader: _Reader
    potential: Potential
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)
    before: float = math.nan

    def __post_init__(self) -> None:
        self.before = self._value()

    def extend(self, token_id: int) -> float:
        self.logprobs.append(float(self.reader.logprobs_V[token_id]))
        self.entropies.append(self.reader.entropy)
        self.reader.read(token_id)
        before, self.before = self.before, self._value()
        return self.before - before

    def _value(self) -> float:
        """phi of everything read so far."""
        self.hidden.append(self.reader.hidden_D)
        hidden_1TD = torch.stack(self.hidden)[None]
        logprobs_1T, entropies_1T = (
            torch.tensor([values], device=hidden_1TD.device).reshape(1, -1)
            for values in (self.logprobs, self.entropies)
        )
        return float(self.potential.values(prefix_states(TrunkPass(logprobs_1T, entropies_1T, hidden_1TD)))[0, -1])


@dataclass(eq=False)
class _Typical:
    reader: _Reader

    def extend(self, token_id: int) -> float:
        reward = float(self.reader.logprobs_V[token_id]) + self.reader.entropy
        self.reader.read(token_id)
        return reward
