"""What people marked in finished texts, as lessons for the potential: where in the text the worth lay."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rewardloop.models.language_model import LanguageModel
from rewardloop.models.packed import forward_completions
from rewardloop.reward.alignment import text_credit, token_credit
from rewardloop.reward.encoding import encode_within
from rewardloop.reward.potential import Potential, prefix_states
from rewardloop.reward.scoring import padded
from rewardloop.types import Dialogue, Edit, Feedback, Span

Marked = Edit | Dialogue | Span


def learn_credit(potential: Potential, reference: LanguageModel, feedback: Sequence[Feedback]) -> Potential:
    """A potential that has also learned from corrections, rewrites and marked spans; the same if there are none."""
    marked = [f for f in feedback if isinstance(f, Marked) and text_credit(f)]
    if not marked:
        return potential
    pairs = [encode_within(reference, f.prompt, f.completion) for f in marked]
    credit = [
        token_credit(text_credit(f), reference.token_offsets(ids)) for f, (_, ids) in zip(marked, pairs, strict=True)
    ]
    trunk = forward_completions(reference.model, [p for p, _ in pairs], [ids for _, ids in pairs])
    values_BT = padded([torch.from_numpy(values_T) for values_T, _ in credit])
    weights_BT = padded([torch.from_numpy(weights_T) for _, weights_T in credit])
    return potential.fitted_to_credit(prefix_states(trunk), values_BT, weights_BT)
