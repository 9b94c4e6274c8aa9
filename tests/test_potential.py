"""The potential: exact ridge, prequential foresight, and the two contracts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from sklearn.linear_model import Ridge

from rewardloop.reward.potential import Potential, explained_variance, gate_lambda, potential_targets


def _states(seed: int, sequences: int = 40, steps: int = 6, width: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(sequences, steps + 1, width, generator=generator)
    lengths = torch.randint(1, steps + 1, (sequences,), generator=generator)
    return hidden, torch.arange(steps) < lengths[:, None]


def test_fit_equals_scikit_learn_ridge() -> None:
    hidden, mask = _states(0)
    targets = torch.randn(mask.shape, generator=torch.Generator().manual_seed(1))
    fitted = Potential.untrained(5, ridge=2.0).fitted(hidden, targets, mask)
    oracle = Ridge(alpha=2.0).fit(hidden[:, :-1][mask].double().numpy(), targets[mask].double().numpy())
    np.testing.assert_allclose(fitted.weights_E[:-1].numpy(), oracle.coef_, atol=1e-6)
    np.testing.assert_allclose(float(fitted.weights_E[-1]), oracle.intercept_, atol=1e-5)


def test_two_batches_equal_one_and_padding_is_ignored() -> None:
    hidden, mask = _states(2)
    targets = torch.randn(mask.shape, generator=torch.Generator().manual_seed(3))
    whole = Potential.untrained(5).fitted(hidden, targets, mask)
    halves = Potential.untrained(5).fitted(hidden[:20], targets[:20], mask[:20])
    halves = halves.fitted(hidden[20:], targets[20:], mask[20:])
    torch.testing.assert_close(halves.weights_E, whole.weights_E)
    noisy = torch.where(mask, targets, 1e6)
    torch.testing.assert_close(Potential.untrained(5).fitted(hidden, noisy, mask).weights_E, whole.weights_E)


def test_targets_by_a_slow_loop() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    log_ratio = torch.tensor([[0.5, -1.0, 2.0], [0.25, 9.0, 9.0]])
    scores = torch.tensor([1.0, -2.0])
    result = potential_targets(scores, log_ratio, mask, beta=0.1)
    for i in range(2):
        for t in range(int(mask[i].sum())):
            expected = scores[i] - 0.1 * sum(log_ratio[i, u] for u in range(t, int(mask[i].sum())))
            torch.testing.assert_close(result[i, t], expected)


def test_explained_variance_rises_along_the_text_and_shuffled_rewards_explain_nothing() -> None:
    """T3.9: the state gathers evidence token by token; phi foresees more the later it looks."""
    generator = torch.Generator().manual_seed(4)
    clues = torch.randn(400, 8, generator=generator)
    hidden = torch.cat([torch.zeros(400, 1), clues.cumsum(-1)], dim=-1)[..., None].repeat(1, 1, 2)
    scores, mask = clues.sum(-1), torch.ones(400, 8, dtype=torch.bool)
    targets = potential_targets(scores, torch.zeros(400, 8), mask, beta=0.1)
    train, test = slice(0, 300), slice(300, 400)
    fitted = Potential.untrained(2).fitted(hidden[train], targets[train], mask[train])
    phi = fitted.values(hidden)[:, :-1]
    by_position = [explained_variance(phi[test, t], targets[test, t], mask[test, t]) for t in range(8)]
    assert all(early < late + 0.05 for early, late in pairwise(by_position))
    assert by_position[-1] > 0.75 > 0.2 > by_position[0]
    shuffled = targets[torch.randperm(400, generator=generator)]
    control = Potential.untrained(2).fitted(hidden[train], shuffled[train], mask[train])
    assert abs(explained_variance(control.values(hidden)[test, :-1], shuffled[test], mask[test])) < 0.1


def test_credit_moves_the_increment_of_the_marked_token() -> None:
    hidden = torch.zeros(1, 4, 3)
    hidden[0, 2:] = torch.tensor([1.0, 0.0, 0.0])  # token 1 brings feature 0
    hidden[0, 3] = torch.tensor([1.0, 1.0, 0.0])  # token 2 brings feature 1
    credit, weights = torch.tensor([[0.0, -1.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.1]])
    phi = Potential.untrained(3, ridge=0.01).fitted_to_credit(hidden, credit, weights).values(hidden)
    increments = phi[0, 1:] - phi[0, :-1]
    assert increments[1] < -0.8
    assert abs(increments[2]) < 0.1


def test_lambda_gate() -> None:
    assert [gate_lambda(v) for v in (-1.0, 0.29, 0.3, 0.79, 0.8, 1.0)] == [1.0, 1.0, 0.95, 0.95, 0.9, 0.9]


def test_tensors_round_trip() -> None:
    hidden, mask = _states(5)
    fitted = Potential.untrained(5).fitted(hidden, hidden[:, :-1, 0], mask)
    again = Potential.from_tensors(fitted.tensors())
    assert torch.equal(again.values(hidden), fitted.values(hidden))
