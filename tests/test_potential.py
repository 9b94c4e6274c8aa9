"""The potential: exact ridge, prequential foresight, and the two contracts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from sklearn.linear_model import Ridge

from rewardloop.models.packed import TrunkPass
from rewardloop.reward.potential import Potential, explained_variance, gate_lambda, potential_targets, prefix_states


def _states(seed: int, sequences: int = 40, steps: int = 6, width: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(sequences, steps + 1, width, generator=generator)
    lengths = torch.randint(1, steps + 1, (sequences,), generator=generator)
    return states, torch.arange(steps) < lengths[:, None]


def test_fit_equals_scikit_learn_ridge() -> None:
    states, mask = _states(0)
    targets = torch.randn(mask.shape, generator=torch.Generator().manual_seed(1))
    fitted = Potential.untrained(5, ridge=2.0).fitted(states, targets, mask)
    oracle = Ridge(alpha=2.0).fit(states[:, :-1][mask].double().numpy(), targets[mask].double().numpy())
    np.testing.assert_allclose(fitted.weights_E[:-1].numpy(), oracle.coef_, atol=1e-6)
    np.testing.assert_allclose(float(fitted.weights_E[-1]), oracle.intercept_, atol=1e-5)


def test_two_batches_equal_one_and_padding_is_ignored() -> None:
    states, mask = _states(2)
    targets = torch.randn(mask.shape, generator=torch.Generator().manual_seed(3))
    whole = Potential.untrained(5).fitted(states, targets, mask)
    halves = Potential.untrained(5).fitted(states[:20], targets[:20], mask[:20])
    halves = halves.fitted(states[20:], targets[20:], mask[20:])
    torch.testing.assert_close(halves.weights_E, whole.weights_E)
    noisy = torch.where(mask, targets, 1e6)
    torch.testing.assert_close(Potential.untrained(5).fitted(states, noisy, mask).weights_E, whole.weights_E)


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
    states = torch.cat([torch.zeros(400, 1), clues.cumsum(-1)], dim=-1)[..., None].repeat(1, 1, 2)
    scores, mask = clues.sum(-1), torch.ones(400, 8, dtype=torch.bool)
    targets = potential_targets(scores, torch.zeros(400, 8), mask, beta=0.1)
    train, test = slice(0, 300), slice(300, 400)
    fitted = Potential.untrained(2).fitted(states[train], targets[train], mask[train])
    phi = fitted.values(states)[:, :-1]
    by_position = [explained_variance(phi[test, t], targets[test, t], mask[test, t]) for t in range(8)]
    assert all(early < late + 0.05 for early, late in pairwise(by_position))
    assert by_position[-1] > 0.75 > 0.2 > by_position[0]
    shuffled = targets[torch.randperm(400, generator=generator)]
    control = Potential.untrained(2).fitted(states[train], shuffled[train], mask[train])
    assert abs(explained_variance(control.values(states)[test, :-1], shuffled[test], mask[test])) < 0.1


def test_credit_moves_the_increment_of_the_marked_token() -> None:
    states = torch.zeros(1, 4, 3)
    states[0, 2:] = torch.tensor([1.0, 0.0, 0.0])  # token 1 brings feature 0
    states[0, 3] = torch.tensor([1.0, 1.0, 0.0])  # token 2 brings feature 1
    credit, weights = torch.tensor([[0.0, -1.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.1]])
    phi = Potential.untrained(3, ridge=0.01).fitted_to_credit(states, credit, weights).values(states)
    increments = phi[0, 1:] - phi[0, :-1]
    assert increments[1] < -0.8
    assert abs(increments[2]) < 0.1


def test_lambda_gate() -> None:
    assert [gate_lambda(v) for v in (-1.0, 0.09, 0.1, 0.19, 0.2, 1.0)] == [1.0, 1.0, 0.9, 0.9, 0.8, 0.8]


def test_tensors_round_trip() -> None:
    states, mask = _states(5)
    fitted = Potential.untrained(5).fitted(states, states[:, :-1, 0], mask)
    again = Potential.from_tensors(fitted.tensors())
    assert torch.equal(again.values(states), fitted.values(states))


def test_prefix_states_are_adapted_and_equal_a_slow_loop() -> None:
    """T1.1 for phi: what comes after a token changes nothing before it."""
    generator = torch.Generator().manual_seed(6)
    hidden, logprobs = torch.randn(2, 6, 3, generator=generator), -4 * torch.rand(2, 5, generator=generator)
    entropies = torch.rand(2, 5, generator=generator)
    states = prefix_states(TrunkPass(logprobs, entropies, hidden))
    for t in range(6):
        seen = logprobs[1, :t].tolist()
        expected, mean = [0.0] * 5, np.zeros(3)
        if seen:
            mean = np.mean([hidden[1, u].numpy() for u in range(1, t + 1)], axis=0)
            shares = [sum(value < np.log(share) for value in seen) / t for share in (0.1, 0.01)]
            surprise = min(0.0, *(a + b for a, b in zip(seen, entropies[1, :t].tolist(), strict=True)))
            expected = [sum(seen) / t, -float(np.log1p(-min(seen))), -float(np.log1p(-surprise)), *shares]
        np.testing.assert_allclose(states[1, t].numpy(), [*hidden[1, t].numpy(), *mean, *expected], atol=1e-6)
    later = [values.clone() for values in (logprobs, entropies, hidden)]
    for values, at in zip(later, (3, 3, 4), strict=True):
        values[:, at:] -= 1
    changed = prefix_states(TrunkPass(*later))
    assert torch.equal(changed[:, :4], states[:, :4])
    assert not torch.equal(changed[:, 4:], states[:, 4:])
