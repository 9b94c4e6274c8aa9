"""The immediate reward of every token of a text, for people to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rewardloop.types import Prompt


@dataclass(frozen=True, slots=True)
class TokenRewards:
    """A completion, its tokens as characters [start, end), and the reward of each.

    An end token has an empty span at the end. Tokens that hold parts of one character share its span.
    """

    prompt: Prompt
    completion: str
    offsets: tuple[tuple[int, int], ...]
    rewards: tuple[float, ...]

    @property
    def tokens(self) -> tuple[str, ...]:
        return tuple(self.completion[start:end] for start, end in self.offsets)


# What `score` needs: a model's typicality, or a learned potential.
TokenScorer = Callable[[Prompt, str], TokenRewards]


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of text that gets one color: a token, or tokens that share a character."""

    text: str  # empty for an end token
    reward: float | None  # the sum over its tokens; None for characters that belong to no token


def segments(scored: TokenRewards) -> list[Segment]:
    """The completion cut into colored pieces; no character and no reward is lost."""
    pieces: list[Segment] = []
    at = 0
    for (start, end), reward in zip(scored.offsets, scored.rewards, strict=True):
        last = pieces[-1] if pieces else None
        if last and last.reward is not None and start < at:
            pieces[-1] = Segment(last.text + scored.completion[at:end], last.reward + reward)
        else:
            if start > at:
                pieces.append(Segment(scored.completion[at:start], None))
            pieces.append(Segment(scored.completion[start:end], reward))
        at = max(at, end)
    if at < len(scored.completion):
        pieces.append(Segment(scored.completion[at:], None))
    return pieces


def color_scale(texts: Sequence[TokenRewards]) -> float:
    """The |reward| that gets the full color: the 95 % quantile over all tokens, so that one outlier does not
    bleach the rest."""
    sizes = sorted(abs(reward) for scored in texts for reward in scored.rewards)
    return max(sizes[int(0.95 * (len(sizes) - 1))], 1e-6) if sizes else 1.0
