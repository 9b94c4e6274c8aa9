"""The expected gradient of every method, counted over all texts of a world, against autograd."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from rewardloop.functional.divergences import exact_kl, total_variation
from rewardloop.functional.losses import Clip
from rewardloop.functional.returns import gae, terminal_rewards
from rewardloop.optimize.policy_gradient import (
    METHODS,
    KLTerm,
    PolicyBatch,
    PolicyGradient,
    Ratio,
    compute_advantages,
    policy_loss,
)
from rewardloop.sandbox.toylm import Texts
from toy_worlds import (
    World,
    all_pairs,
    all_texts,
    autograd,
    loss_gradient,
    misalignment,
    relative_error,
)

EXACT = 1e-9
K1, K2_SEQ = KLTerm("reward", "k1"), KLTerm("loss", "k2_seq")
PLAIN = PolicyGradient(ratio=Ratio("none"), kl=None)


@pytest.fixture(scope="module")
def world() -> World:
    """15 texts, 225 pairs; scores far from 0, so that baselines have work to do; phi wrong."""
    return World.make(3, 3, offset=1.0)


def objective_gradient(world: World, *, beta: float | None = None) -> Tensor:
    """The true gradient of -J, by autograd over all texts."""
    beta = world.beta if beta is None else beta
    return autograd(
        lambda logits: -world.lm.objective(logits, world.ref_logits_SV, world.scores_N, beta), world.logits_SV
    )


# ---------------------------------------------------------------- T2.1, T1.4 unbiased


@pytest.mark.parametrize(
    ("returns", "critic", "kl"),
    list(product(["sequence", "to_go", "gae"], [False, True], [None, K1, K2_SEQ])),
)
@pytest.mark.parametrize("baseline", ["none", "ema", "loo", "loo_pos"])
def test_expected_gradient_is_the_gradient_of_the_objective(
    world: World, returns: str, baseline: str, critic: bool, kl: KLTerm | None
) -> None:
    """T2.1, and T1.4: with a random phi as critic it is the same gradient as without."""
    method = PolicyGradient(
        returns=returns,  # type: ignore[arg-type]
        baseline=baseline,  # type: ignore[arg-type]
        critic=critic,
        ratio=Ratio("token", Clip()),
        kl=kl,
        biased_ok=returns == "gae" and not critic,  # at lambda 1 it is to_go
    )
    feed = all_pairs(world) if baseline.startswith("loo") else all_texts(world)
    given = loss_gradient(world, method, feed, phi_S=world.phi_S, running_mean=0.7)
    expected = objective_gradient(world, beta=None if kl else 0.0)
    assert relative_error(given, expected) < EXACT


@pytest.mark.parametrize("returns", ["sequence", "to_go", "gae"])
@pytest.mark.parametrize("kl", [None, K1])
def test_group_mean_halves_the_gradient_of_a_pair(world: World, returns: str, kl: KLTerm | None) -> None:
    method = replace(PLAIN, returns=returns, critic=True, baseline="group_mean", kl=kl)
    given = loss_gradient(world, method, all_pairs(world), phi_S=world.phi_S)
    assert relative_error(2 * given, objective_gradient(world, beta=None if kl else 0.0)) < EXACT


@pytest.mark.parametrize("changes", [{"scale": "batch_std"}, {"aggregation": "token_mean"}, {"constant": 7.0}], ids=str)
def test_common_factors_do_not_turn_the_gradient(world: World, changes: dict[str, object]) -> None:
    method = replace(PLAIN, returns="to_go", baseline="loo", kl=K1, **changes)  # type: ignore[arg-type]
    given = loss_gradient(world, method, all_pairs(world))
    assert misalignment(given, objective_gradient(world)) < EXACT
    assert relative_error(given, objective_gradient(world)) > 0.05


@pytest.mark.parametrize("name", ["default", "reinforce", "rloo", "ppo", "dr-grpo", "decoupled-ppo"])
def test_methods_without_a_bias_point_up_the_objective(world: World, name: str) -> None:
    """On-policy, at lambda 1, every row of the table that claims the right optimum."""
    method = METHODS[name]
    assert not method.biases()
    given = loss_gradient(world, method, all_pairs(world), phi_S=world.phi_S, running_mean=0.7)
    assert misalignment(given, objective_gradient(world, beta=None if method.kl else 0.0)) < EXACT


@pytest.mark.parametrize(
    ("changes", "gae_lambda"),
    [
        ({"baseline": "group_mean", "scale": "group_std"}, 1.0),
        ({"aggregation": "seq_mean"}, 1.0),
        ({"returns": "gae", "critic": True}, 0.5),
        ({"returns": "gae", "critic": True}, 0.95),
        ({"returns": "gae"}, 0.5),
    ],
    ids=str,
)
def test_biased_options_are_found_out(world: World, changes: dict[str, object], gae_lambda: float) -> None:
    """T2.1: these must fail what the options above pass, whatever factor is allowed."""
    method = replace(PLAIN, kl=K1, biased_ok=True, **changes)  # type: ignore[arg-type]
    given = loss_gradient(world, method, all_pairs(world), phi_S=world.phi_S, gae_lambda=gae_lambda)
    assert misalignment(given, objective_gradient(world)) > 0.01


def test_bias_of_lambda_falls_to_zero_with_the_error_of_the_critic(world: World) -> None:
    """GAE's bias at lambda 0, .5, .95, 1 falls to 0; with the true V it is 0 at every lambda."""
    method = replace(PLAIN, returns="gae", critic=True, kl=None)
    expected = objective_gradient(world, beta=0.0)
    wrong = [
        relative_error(
            loss_gradient(world, method, all_texts(world), phi_S=world.phi_S, gae_lambda=gae_lambda), expected
        )
        for gae_lambda in (0.0, 0.5, 0.95, 1.0)
    ]
    assert wrong == sorted(wrong, reverse=True)
    assert wrong[2] > 0.01
    assert wrong[3] < EXACT
    true_S = policy_values(world)
    for gae_lambda in (0.0, 0.5):
        given = loss_gradient(world, method, all_texts(world), phi_S=true_S, gae_lambda=gae_lambda)
        assert relative_error(given, expected) < EXACT


def test_group_std_of_pairs_climbs_the_sign_of_the_difference(world: World) -> None:
    """GRPO's scale with k = 2 is the gradient of E[sign(R - R')]: how much better no longer matters."""
    method = replace(PLAIN, baseline="group_mean", scale="group_std", biased_ok=True)
    given = loss_gradient(world, method, all_pairs(world))
    signs_NN = torch.sign(world.scores_N[:, None] - world.scores_N[None])

    def preference(logits_SV: Tensor) -> Tensor:
        p_N = world.lm.logprobs(logits_SV).exp()
        return -(p_N @ signs_NN @ p_N.detach())

    assert misalignment(given, autograd(preference, world.logits_SV)) < 1e-4  # the epsilon beside the deviation


def policy_values(world: World) -> Tensor:
    """V(s) of the policy without KL: the mean score of the texts that pass through s."""
    texts, _, p_N = all_texts(world)
    reach_S, worth_S = torch.zeros_like(world.phi_S), torch.zeros_like(world.phi_S)
    states_N, p_flat_N = (
        texts.states_BT[texts.mask_BT],
        p_N[:, None].expand(texts.mask_BT.shape)[texts.mask_BT],
    )
    scores_flat_N = world.scores_N[:, None].expand(texts.mask_BT.shape)[texts.mask_BT]
    reach_S.index_add_(0, states_N, p_flat_N)
    worth_S.index_add_(0, states_N, p_flat_N * scores_flat_N)
    return worth_S / reach_S


# ---------------------------------------------------------------- T2.2 the sampler, T2.3 variance


def test_sampled_gradient_has_the_exact_mean(world: World) -> None:
    """T2.2: 20 000 texts from the real sampler in groups of four; 20 random projections, |z| < 4."""
    projections = sampled_projections(world, METHODS["default"], 20_000, group=4, phi_S=world.phi_S)
    means, errors = projections.mean(0), projections.std(0) / len(projections) ** 0.5
    exact = objective_gradient(world)
    directions = random_directions(world)
    z = (means - (directions * exact).sum((1, 2))) / errors
    assert float(z.abs().max()) < 4
    assert float(z.abs().max()) > 0.1  # errors are errors, not infinite
    # The same test rejects the gradient without the KL.
    without = objective_gradient(world, beta=0.0)
    assert float(((means - (directions * without).sum((1, 2))) / errors).abs().max()) > 4


def random_directions(world: World, count: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(99)
    directions = torch.randn(count, *world.logits_SV.shape, generator=generator, dtype=torch.float64)
    return directions / directions.flatten(1).norm(dim=1)[:, None, None]


def sampled_projections(
    world: World,
    method: PolicyGradient,
    count: int,
    *,
    group: int,
    phi_S: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """The loss gradient of every sampled group along 20 directions, [groups, 20]."""
    texts = world.lm.sample(world.logits_SV, count, torch.Generator().manual_seed(seed))
    groups = torch.arange(count // group).repeat_interleave(group).tolist()
    scored = world.scored(texts, groups, phi_S=phi_S)
    advantages_BT = compute_advantages(method, scored, beta=world.beta)
    batch = PolicyBatch.make(method, scored, None, advantages_BT, beta=world.beta)
    leaf_BT = scored.old_logprobs_BT.clone().requires_grad_()
    (coefficients_BT,) = torch.autograd.grad(policy_loss(method, leaf_BT, batch).loss, leaf_BT)
    probabilities_SV = world.logits_SV.softmax(-1)
    columns = []
    for direction_SV in random_directions(world):
        slopes_SV = direction_SV - (probabilities_SV * direction_SV).sum(-1, keepdim=True)
        slopes_BT = slopes_SV[texts.states_BT, texts.tokens_BT]
        columns.append((coefficients_BT * slopes_BT * texts.mask_BT).sum(-1))
    return torch.stack(columns, -1).view(count // group, group, -1).sum(1) * (count // group)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_baselines_lower_the_variance_of_an_offset_reward(seed: int) -> None:
    """T2.3: with R + 3, siblings lower the variance many times, four more than two; phi = V does more.

    With the true V there is nothing left for siblings to take off: they add noise of their own.
    """
    world = World.make(3, 3, offset=3.0, seed=seed)
    true_S = policy_values(world)
    variance = {}
    for name, method, group, phi_S in [
        ("none", PLAIN, 4, None),
        ("loo 2", replace(PLAIN, baseline="loo"), 2, None),
        ("loo 4", replace(PLAIN, baseline="loo"), 4, None),
        ("loo_pos + V", replace(PLAIN, returns="gae", baseline="loo_pos", critic=True), 4, true_S),
        ("V", replace(PLAIN, returns="gae", critic=True), 4, true_S),
    ]:
        projections = sampled_projections(world, method, 20_000, group=group, phi_S=phi_S)
        variance[name] = float(projections.var(0).sum()) * group
    assert variance["none"] > 2 * variance["loo 2"]
    assert variance["loo 2"] > 1.2 * variance["loo 4"]
    assert variance["loo 4"] > 1.1 * variance["loo_pos + V"]
    assert variance["loo_pos + V"] > 1.1 * variance["V"]


# ---------------------------------------------------------------- T2.5 silence at the optimum


def test_at_the_optimum_every_pair_is_silent(world: World) -> None:
    """T2.5: S is constant at p*, so that RLOO's gradient is 0 pair by pair, not only in the mean."""
    method = METHODS["rloo"]
    assert silence(world, method) < EXACT
    assert silence(world, replace(method, kl=None)) > 0.1  # the KL was left out of S
    assert silence(world, replace(method, returns="to_go")) > 0.1  # reward-to-go keeps its noise


def silence(world: World, method: PolicyGradient, *, noise_in_reference: float = 0.0) -> float:
    """Largest coefficient that any token of any pair gets at p*."""
    logits_SV = world.lm.optimal_logits(world.ref_logits_SV, world.scores_N, world.beta)
    texts, groups, _ = all_pairs(world, logits_SV)
    scored = world.scored(texts, groups, sampler_SV=logits_SV)
    generator = torch.Generator().manual_seed(0)
    jitter_BT = torch.randn(scored.ref_logprobs_BT.shape, generator=generator, dtype=torch.float64)
    scored = replace(scored, ref_logprobs_BT=scored.ref_logprobs_BT + noise_in_reference * jitter_BT)
    advantages_BT = compute_advantages(method, scored, beta=world.beta)
    return float(advantages_BT.abs().max())


# ---------------------------------------------------------------- T2.8 off-policy


def moved(seed: int) -> tuple[World, Tensor]:
    """A world and a sampler at KL(sampler || policy) = .15."""
    world = World.make(3, 3, seed=seed)
    generator = torch.Generator().manual_seed(seed + 5)
    direction_SV = torch.randn(world.logits_SV.shape, generator=generator, dtype=torch.float64)
    low, high = 0.0, 4.0
    for _ in range(60):
        middle = (low + high) / 2
        sampler_SV = world.logits_SV + middle * direction_SV
        kl = float(exact_kl(world.lm.logprobs(sampler_SV), world.lm.logprobs(world.logits_SV)))
        low, high = (middle, high) if kl < 0.15 else (low, middle)
    return world, sampler_SV


def off_policy_gradient(world: World, sampler_SV: Tensor, ratio: Ratio, **changes: object) -> Tensor:
    method = replace(PLAIN, ratio=ratio, biased_ok=True, **changes)  # type: ignore[arg-type]
    phi_S = policy_values(world) if method.critic else None
    return loss_gradient(world, method, all_texts(world, sampler_SV), sampler_SV=sampler_SV, phi_S=phi_S)


def test_levels_agree_on_policy(world: World) -> None:
    """T2.8: at mu = pi the ratio is 1 at every level, to the last bits."""
    method = METHODS["rloo"]
    gradients = [
        loss_gradient(world, replace(method, ratio=Ratio(level), biased_ok=True), all_pairs(world))
        for level in ("none", "token", "prefix", "sequence", "geomean")
    ]
    for gradient in gradients[1:]:
        assert relative_error(gradient, gradients[0]) < 1e-12


@pytest.mark.parametrize("kl", [None, K1])
def test_sequence_weights_are_unbiased_off_policy(kl: KLTerm | None) -> None:
    world, sampler_SV = moved(3)
    given = off_policy_gradient(world, sampler_SV, Ratio("sequence"), kl=kl)
    assert relative_error(given, objective_gradient(world, beta=None if kl else 0.0)) < EXACT


def test_prefix_weights_are_unbiased_with_a_true_advantage() -> None:
    """With V of the policy as phi, lambda = 0 gives the true A of every action; token weights do not do."""
    world, sampler_SV = moved(3)
    method = replace(PLAIN, returns="gae", critic=True, ratio=Ratio("prefix"))
    feed = all_texts(world, sampler_SV)
    expected = objective_gradient(world, beta=0.0)
    given = loss_gradient(world, method, feed, sampler_SV=sampler_SV, phi_S=policy_values(world), gae_lambda=0.0)
    assert relative_error(given, expected) < EXACT
    token = loss_gradient(
        world,
        replace(method, ratio=Ratio("token")),
        feed,
        sampler_SV=sampler_SV,
        phi_S=policy_values(world),
        gae_lambda=0.0,
    )
    assert relative_error(token, expected) > 0.05


def test_order_of_bias_off_policy() -> None:
    """T2.8: no ratio, and GSPO's mean over the sequence, > token > sequence = 0; means of eight worlds."""
    ratios = {
        "none": {"ratio": Ratio("none")},
        "geomean": {"ratio": Ratio("geomean"), "aggregation": "seq_mean"},
        "token": {"ratio": Ratio("token")},
        "sequence": {"ratio": Ratio("sequence")},
    }
    bias = dict.fromkeys(ratios, 0.0)
    for seed in range(8):
        world, sampler_SV = moved(seed)
        expected = objective_gradient(world, beta=0.0)
        for name, options in ratios.items():
            given = off_policy_gradient(world, sampler_SV, **options)  # type: ignore[arg-type]
            bias[name] += relative_error(given, expected) / 8
    assert bias["none"] > 1.3 * bias["token"]
    assert bias["geomean"] > 1.3 * bias["token"]
    assert bias["token"] > 0.1 > EXACT > bias["sequence"]


# ---------------------------------------------------------------- T2.10 mutants


def test_mutants_are_caught(world: World) -> None:
    """T2.10: each slip moves the exact gradient; the check that the methods pass sees it."""
    texts, groups, weights_B = all_texts(world)
    scored = world.scored(texts, groups)
    method = METHODS["rloo"]
    method = replace(method, baseline="none")
    expected = objective_gradient(world)

    def gradient(tokens_BT: Tensor, mask_BT: Tensor, shift: int = 0) -> Tensor:
        changed = replace(scored, completion_mask_BT=mask_BT)
        advantages_BT = compute_advantages(method, changed, beta=world.beta)
        batch = PolicyBatch.make(method, changed, None, advantages_BT, beta=world.beta, weights_B=weights_B)
        read = Texts(tokens_BT, texts.states_BT, texts.mask_BT)
        return autograd(
            lambda logits: policy_loss(method, world.lm.token_logprobs(logits, read).roll(shift, -1), batch).loss,
            world.logits_SV,
        )

    assert relative_error(gradient(texts.tokens_BT, texts.mask_BT), expected) < EXACT
    mutants = {
        "log-prob shifted by one": gradient(texts.tokens_BT, texts.mask_BT, shift=1),
        "wrong index": gradient((texts.tokens_BT + 1) % 3, texts.mask_BT),
    }
    ends_BT = texts.mask_BT & (texts.tokens_BT == world.lm.end)
    keeps_one_BT = texts.mask_BT & ~(ends_BT & (torch.arange(3) > 0))
    mutants["end token out of the mask"] = gradient(texts.tokens_BT, keeps_one_BT)
    for name, mutant in mutants.items():
        assert misalignment(mutant, expected) > 0.05, name


def test_phi_subtracted_twice_is_caught(world: World) -> None:
    """T2.10: GAE on shaped rewards with phi as V again is another gradient below lambda 1."""
    method = replace(PLAIN, returns="gae", critic=True)
    texts, groups, weights_B = all_texts(world)
    scored = world.scored(texts, groups, phi_S=world.phi_S)
    values_BT = scored.phi_BT1[:, :-1]

    def gradient(advantages_BT: Tensor) -> Tensor:
        batch = PolicyBatch.make(method, scored, None, advantages_BT, beta=0.0, weights_B=weights_B)
        return autograd(
            lambda logits: policy_loss(method, world.lm.token_logprobs(logits, texts), batch).loss,
            world.logits_SV,
        )

    production = gradient(compute_advantages(method, scored, beta=0.0, gae_lambda=0.9))
    terminal_BT = terminal_rewards(scored.scores_B, texts.mask_BT)
    textbook = gradient(gae(terminal_BT, texts.mask_BT, gae_lambda=0.9, values_BT=values_BT))
    double = gradient(gae(scored.rewards_BT, texts.mask_BT, gae_lambda=0.9, values_BT=values_BT))
    assert relative_error(production, textbook) < EXACT
    assert relative_error(double, textbook) > 0.01


def test_dropout_in_the_reference_is_caught(world: World) -> None:
    """T2.10: noise in the reference breaks the silence at the optimum."""
    assert silence(world, METHODS["rloo"], noise_in_reference=0.01) > 1e-3


# ---------------------------------------------------------------- T1.5, T1.6, T2.6 optima, without sampling


def ascend(world: World, gradient: object, steps: int = 400, lr: float = 0.1) -> float:
    """TV from p* after Adam on an exact gradient; `gradient` takes a world at the policy."""
    logits_SV = world.ref_logits_SV.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits_SV], lr=lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        logits_SV.grad = gradient(replace(world, logits_SV=logits_SV.detach()))  # type: ignore[operator]
        optimizer.step()
        schedule.step()
    return world.distance(logits_SV)


def test_anchored_rewards_reach_the_optimum_and_others_do_not(world: World) -> None:
    """T1.5: with a wrong head, the anchor leaves p* where it is; without it the policy ends elsewhere."""
    method = replace(PLAIN, returns="to_go", critic=True, kl=K1)
    assert ascend(world, lambda at: loss_gradient(at, method, all_texts(at), phi_S=world.phi_S)) < 1e-3

    def unanchored(at: World) -> Tensor:
        # The head's own value of the finished text in place of R: here the score of some other text.
        fooled = replace(at, scores_N=world.scores_N.roll(4))
        return loss_gradient(fooled, method, all_texts(at), phi_S=world.phi_S)

    assert ascend(world, unanchored) > 0.1


def test_tokens_of_dpo_are_differences_of_the_soft_value(world: World) -> None:
    """T1.6: at the optimum of DPO, found by minimizing its loss, beta log ratios are V*(s') - V*(s)."""
    gaps_NN = world.scores_N[:, None] - world.scores_N[None]
    logits_SV = world.ref_logits_SV.clone().requires_grad_()
    ref_N = world.lm.logprobs(world.ref_logits_SV)
    optimizer = torch.optim.LBFGS(
        [logits_SV], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        implied_N = world.beta * (world.lm.logprobs(logits_SV) - ref_N)
        margins_NN = implied_N[:, None] - implied_N[None]
        loss = -(gaps_NN.sigmoid() * torch.nn.functional.logsigmoid(margins_NN)).mean()
        loss.backward()
        return loss.detach()

    for _ in range(3):
        optimizer.step(closure)
    texts = world.lm.texts
    tokens_BT = world.beta * (
        world.lm.token_logprobs(logits_SV.detach(), texts) - world.lm.token_logprobs(world.ref_logits_SV, texts)
    )
    soft_S = world.lm.soft_values(world.ref_logits_SV, world.scores_N, world.beta)
    expected_BT = world.scored(texts, [0] * len(tokens_BT), phi_S=soft_S).rewards_BT
    torch.testing.assert_close(tokens_BT, expected_BT, rtol=0, atol=1e-6)
    sums_B = tokens_BT.sum(-1) + soft_S[0]
    torch.testing.assert_close(sums_B, world.scores_N, rtol=0, atol=1e-6)


RIGHT = [("reward", "k1"), ("loss", "k2_seq")]
WRONG = [
    ("loss", "k2"),
    ("loss", "full"),
    ("loss", "k3"),
    ("loss", "k3_seq"),
    ("reward", "k3"),
    ("reward", "k2"),
]


def kl_method(place: str, estimator: str) -> PolicyGradient:
    return replace(PLAIN, returns="to_go", kl=KLTerm(place, estimator), biased_ok=True)  # type: ignore[arg-type]


def kl_cosines(place: str, estimator: str, distance: float = 1.0) -> list[float]:
    """Cosine of the expected gradient at R = 0 to the gradient of the KL, in three worlds."""
    cosines = []
    for seed in range(3):
        world = at_a_distance(seed, distance)
        given = loss_gradient(world, kl_method(place, estimator), all_texts(world))
        expected = objective_gradient(world)
        cosines.append(float((given * expected).sum() / (given.norm() * expected.norm())))
    return cosines


def at_a_distance(seed: int, distance: float) -> World:
    """A world without reward; the policy's logits lie `distance` (a deviation) from the reference's."""
    world = World.make(4, 4, seed=seed, beta=1.0)
    generator = torch.Generator().manual_seed(seed + 50)
    away_SV = torch.randn(world.logits_SV.shape, generator=generator, dtype=torch.float64)
    return replace(world, scores_N=torch.zeros_like(world.scores_N), logits_SV=world.ref_logits_SV + distance * away_SV)


@pytest.mark.parametrize(("place", "estimator"), RIGHT)
def test_right_kl_terms_have_the_gradient_of_the_kl(place: str, estimator: str) -> None:
    """T2.6."""
    assert min(kl_cosines(place, estimator)) > 1 - EXACT


@pytest.mark.parametrize(("place", "estimator"), WRONG)
def test_wrong_kl_terms_point_elsewhere(place: str, estimator: str) -> None:
    """T2.6: in the worst of three worlds (this is the table in functional/divergences)."""
    worst = {"k2": 0.42, "full": 0.42, "k3": 0.44, "k3_seq": 0.37}
    if place == "reward":
        worst = {"k3": -0.38, "k2": 0.20}
    assert min(kl_cosines(place, estimator)) == pytest.approx(worst[estimator], abs=0.01)


def test_k3_in_the_reward_vanishes_near_the_reference() -> None:
    """Ten times nearer, its gradient is a hundred times smaller; that of the KL ten times."""

    def shrinkage(estimator: str) -> float:
        near, nearer = (
            loss_gradient(world, kl_method("reward", estimator), all_texts(world)).norm()
            for world in (at_a_distance(0, 1e-3), at_a_distance(0, 1e-4))
        )
        return float(near / nearer)

    assert shrinkage("k1") == pytest.approx(10, rel=0.01)
    assert shrinkage("k3") == pytest.approx(100, rel=0.01)


def test_k1_in_the_loss_has_no_gradient() -> None:
    world = at_a_distance(0, 1.0)
    given = loss_gradient(world, kl_method("loss", "k1"), all_texts(world))
    assert float(given.norm()) < 1e-12 < 0.01 < float(objective_gradient(world).norm())


@pytest.mark.parametrize(("place", "estimator"), [*RIGHT, *WRONG, ("loss", "k1")])
def test_where_every_kl_term_leads(place: str, estimator: str) -> None:
    """T2.6: trained on its exact gradient, a right term ends at p*, a wrong one does not."""
    world = World.make(3, 3, beta=0.5)
    distance = ascend(world, lambda at: loss_gradient(at, kl_method(place, estimator), all_texts(at)))
    if (place, estimator) in RIGHT:
        assert distance < 1e-3
    else:
        assert distance > 0.05


def test_distance_to_the_optimum_is_measured_against_the_right_one(world: World) -> None:
    assert world.distance(world.lm.optimal_logits(world.ref_logits_SV, world.scores_N, world.beta)) < 1e-12
    assert float(total_variation(world.lm.logprobs(world.ref_logits_SV).exp(), world.optimum())) > 0.2
