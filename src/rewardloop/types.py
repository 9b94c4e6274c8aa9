"""The words of rewardloop: one frozen dataclass for every arrow of data. Imports no torch.

Tensors and arrays end in their shape. The letters, listed once:

    B  sequences            G  samples of one prompt     P  prompt tokens
    T  completion tokens    S  tokens of prompt + completion (S = P + T)
    V  vocabulary           D  hidden width              H  heads (attention, or of an ensemble)
    L  layers               N  tokens of a packed batch, all sequences end to end

`.sum(-1)` drops the last letter. A trailing 1 means "one more": phi_BT1 has T + 1 columns.
Ragged batches are padded on the right; masks are named for what is kept (True = used).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# ---------------------------------------------------------------- texts


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


# A text to be continued as it stands, or a conversation to be answered.
Prompt = str | tuple[Message, ...]


# ---------------------------------------------------------------- feedback: what people say


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The declared scale of a rating: integers from `low` to `high`, both included. A thumb is 0 to 1."""

    low: int = 1
    high: int = 5

    @property
    def categories(self) -> int:
        return self.high - self.low + 1


THUMB = Scale(low=0, high=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgment:
    """What every kind of feedback has in common."""

    prompt: Prompt
    annotator: str | None = None
    criterion: str = "overall"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating(Judgment):
    """A number of stars, or a thumb (scale THUMB): `value` is an integer step on `scale`."""

    completion: str
    value: int
    scale: Scale = field(default_factory=Scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference(Judgment):
    """A choice between two completions, `first` and `second` in the order in which they were shown."""

    first: str
    second: str
    choice: Literal["first", "second", "tie", "both_bad"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking(Judgment):
    """K completions in the order shown; `ranks[i]` is the rank of completion i, 1 is best, ties equal."""

    completions: tuple[str, ...]
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit(Judgment):
    """A completion and its corrected text; the difference between them is ours to find."""

    completion: str
    corrected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment(Judgment):
    """Free words about a completion."""

    completion: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue(Judgment):
    """The user's next turn, read as evaluation (-1, 0, +1; None = no reaction) and as direction (a rewrite)."""

    completion: str
    reply: str
    evaluation: Literal[-1, 0, 1] | None = None
    rewrite: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Live(Judgment):
    """A key held while the words appear: +1 or -1 at character `offset`, pressed `reaction_ms` after it showed."""

    completion: str
    offset: int
    value: Literal[-1, 1]
    reaction_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Span(Judgment):
    """Characters [start, end) of a completion marked with a category; severity -1 (very bad) to 1 (very good)."""

    completion: str
    start: int
    end: int
    category: str
    severity: float = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag(Judgment):
    """A completion that must not be shown again."""

    completion: str
    reason: str


Feedback = Rating | Preference | Ranking | Edit | Comment | Dialogue | Live | Span | Flag


# ---------------------------------------------------------------- rollouts: what the policy said


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """One sampled completion with everything needed to learn from it later."""

    prompt: Prompt
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]  # T tokens, the end token included if one was sampled
    logprobs_T: np.ndarray  # float32, at sampling, at the sampling temperature, under `weight_versions_T`
    weight_versions_T: np.ndarray  # int32
    text: str  # without the end token
    finish_reason: Literal["stop", "length", "cancelled"]
    temperature: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """A batch of completions. Sequences of one prompt lie next to each other and share a group number."""

    completions: tuple[Completion, ...]  # B
    groups: tuple[int, ...]  # B, group_size equal numbers in a row

    def __len__(self) -> int:
        return len(self.completions)


@dataclass(frozen=True, slots=True, eq=False)
class ScoredRollout:
    """A rollout with its immediate rewards (`reward.scoring` makes it).

    Contracts: *adapted*, rewards_BT[:, t] depends on tokens <= t only, except
    the last, which *anchors*: rewards_BT.sum(-1) + phi_BT1[:, 0] == scores_B, before the KL term.
    """

    rollout: Rollout
    scores_B: Tensor  # R(x, y), standardized per reward version
    phi_BT1: Tensor  # potential of every prefix; column 0 is the prompt; the entry at each length is R
    rewards_BT: Tensor  # phi differences, anchored, *without* KL
    old_logprobs_BT: Tensor  # at sampling (mu)
    ref_logprobs_BT: Tensor  # of the frozen reference
    completion_mask_BT: Tensor  # bool; the end token is inside
    reward_version: str  # never mixed within a group


# ---------------------------------------------------------------- rewards


@runtime_checkable
class RewardSource(Protocol):
    """Scores finished answers as text: R(x, y), one float for each sequence.

    A model learned from people, a rule, a discriminator, a weighted sum. Sources see text, so that a backbone
    may have a tokenizer of its own.
    """

    @property
    def version(self) -> str:
        """Changes whenever the scores would; stamps every score."""

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> np.ndarray:
        """float64 array of B scores. Raises TrainingError where a score is not finite."""
