"""From a rollout to immediate rewards: one forward of the frozen reference gives the KL and phi together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rewardloop.errors import TrainingError
from rewardloop.functional.returns import token_rewards
from rewardloop.hardware import Precision
from rewardloop.models.language_model import LanguageModel
from rewardloop.models.packed import forward_completions
from rewardloop.reward.potential import Potential, prefix_states
from rewardloop.types import Completion, RewardSource, Rollout, ScoredRollout


@dataclass(frozen=True, eq=False)
class Scoring:
    """A scored rollout and the states of the reference that phi was read from."""

    scored: ScoredRollout
    states_BT1D: Tensor  # s_0 ... s_T as phi sees them


def score_rollout(
    rollout: Rollout,
    source: RewardSource,
    reference: LanguageModel,
    potential: Potential,
    *,
    missing_end_score: float | None = -1.0,
    precision: Precision = "float32",
) -> Scoring:
    """R, phi and the anchored token rewards of every completion.

    A completion without an end token was cut off: it gets `missing_end_score` (in standard deviations of the
    reference's reward) in place of a score for half a text; None scores it as it stands.
    Raises TrainingError when a score is not finite.
    """
    completions = rollout.completions
    token_ids = [c.token_ids for c in completions]
    trunk = forward_completions(
        reference.model,
        [c.prompt_ids for c in completions],
        token_ids,
        temperature=completions[0].temperature,
        precision=precision,
    )
    mask_BT = lengths_mask([len(ids) for ids in token_ids], trunk.logprobs_BT.device)
    scores_B = _scores(completions, source, missing_end_score).to(mask_BT.device)
    states_BT1D = prefix_states(trunk)
    phi_BT1 = potential.values(states_BT1D)
    # The potential of a finished text is its reward: phi(s_T) = R.
    lengths_B = mask_BT.sum(-1)
    phi_BT1 = phi_BT1.scatter(1, lengths_B[:, None], scores_B[:, None].float())
    scored = ScoredRollout(
        rollout=rollout,
        scores_B=scores_B,
        phi_BT1=phi_BT1,
        rewards_BT=token_rewards(phi_BT1, scores_B, mask_BT),
        old_logprobs_BT=padded([torch.from_numpy(c.logprobs_T) for c in completions]).to(mask_BT.device),
        ref_logprobs_BT=trunk.logprobs_BT,
        completion_mask_BT=mask_BT,
        reward_version=source.version,
    )
    return Scoring(scored, states_BT1D)


def padded(rows: Sequence[Tensor]) -> Tensor:
    """Ragged rows, right-padded with 0."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def lengths_mask(lengths: Sequence[int], device: torch.device) -> Tensor:
    lengths_B = torch.tensor(lengths, device=device)
    return torch.arange(int(lengths_B.max()), device=device) < lengths_B[:, None]


def _scores(completions: Sequence[Completion], source: RewardSource, missing_end_score: float | None) -> Tensor:
    scores_B = torch.from_numpy(source.score([c.prompt for c in completions], [c.text for c in completions]))
    if missing_end_score is not None:
        ended_B = torch.tensor([c.finish_reason == "stop" for c in completions])
        scores_B = torch.where(ended_B, scores_B, missing_end_score)
    if not bool(torch.isfinite(scores_B).all()):
        worst = int((~torch.isfinite(scores_B)).nonzero()[0])
        raise TrainingError(
            f"reward {source.version} gave {float(scores_B[worst])} for completion {worst} "
            f"({completions[worst].text[:60]!r}); rewards must be finite numbers"
        )
    return scores_B.float()
