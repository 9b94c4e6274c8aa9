"""Worlds small enough to count, as scored rollouts: what the tests of gradients and optima have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rewardloop.functional.divergences import total_variation
from rewardloop.functional.returns import token_rewards
from rewardloop.optimize.policy_gradient import PolicyBatch, PolicyGradient, compute_advantages, policy_loss
from rewardloop.sandbox.toylm import Texts, ToyLM
from rewardloop.types import Rollout, ScoredRollout


@dataclass(frozen=True, eq=False)
class World:
    """A reference, a policy away from it, a reward of every text, a wrong potential; from a seed."""

    lm: ToyLM
    ref_logits_SV: Tensor
    logits_SV: Tensor
    scores_N: Tensor
    phi_S: Tensor
    beta: float

    @staticmethod
    def make(vocabulary: int, max_tokens: int, *, seed: int = 0, beta: float = 0.3, offset: float = 0.0) -> World:
        lm = ToyLM(vocabulary, max_tokens)
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        ref_logits_SV = 0.5 * normal(lm.states, vocabulary)
        return World(
            lm=lm,
            ref_logits_SV=ref_logits_SV,
            logits_SV=ref_logits_SV + 0.5 * normal(lm.states, vocabulary),
            scores_N=offset + normal(len(lm.texts.mask_BT)),
            phi_S=2.0 * normal(lm.states),
            beta=beta,
        )

    def scored(
        self,
        texts: Texts,
        groups: list[int],
        *,
        sampler_SV: Tensor | None = None,
        phi_S: Tensor | None = None,
    ) -> ScoredRollout:
        """`texts` with rewards of phi (None = 0), sampled under `sampler_SV` (None = the policy)."""
        sampler_SV = self.logits_SV if sampler_SV is None else sampler_SV
        phi_S = torch.zeros_like(self.phi_S) if phi_S is None else phi_S
        scores_B = self.scores_N[self.lm.numbers(texts)]
        phi_BT1 = self.lm.potential(phi_S, texts)
        return ScoredRollout(
            rollout=Rollout(completions=(), groups=tuple(groups)),
            scores_B=scores_B,
            phi_BT1=phi_BT1,
            rewards_BT=token_rewards(phi_BT1, scores_B, texts.mask_BT),
            old_logprobs_BT=self.lm.token_logprobs(sampler_SV, texts).detach(),
            ref_logprobs_BT=self.lm.token_logprobs(self.ref_logits_SV, texts).detach(),
            completion_mask_BT=texts.mask_BT,
            reward_version="toy",
        )

    def optimum(self) -> Tensor:
        return self.lm.optimum(self.ref_logits_SV, self.scores_N, self.beta)[0]

    def distance(self, logits_SV: Tensor) -> float:
        """TV of a policy from p*."""
        return float(total_variation(self.lm.logprobs(logits_SV.detach()).exp(), self.optimum()))


def all_texts(world: World, logits_SV: Tensor | None = None) -> tuple[Texts, list[int], Tensor]:
    """Every text once, a group of its own, weighted by its probability."""
    logits_SV = world.logits_SV if logits_SV is None else logits_SV
    texts = world.lm.texts
    return texts, list(range(len(texts.mask_BT))), world.lm.logprobs(logits_SV).exp().detach()


def all_pairs(world: World, logits_SV: Tensor | None = None) -> tuple[Texts, list[int], Tensor]:
    """Every ordered pair of texts as a group of two; each member has half the probability of the pair."""
    texts, _, p_N = all_texts(world, logits_SV)
    count = len(p_N)
    first, second = torch.arange(count).repeat_interleave(count), torch.arange(count).repeat(count)
    rows = torch.stack([first, second], 1).flatten()
    weights_B = (p_N[first] * p_N[second] / 2).repeat_interleave(2)
    return texts[rows], torch.arange(count * count).repeat_interleave(2).tolist(), weights_B


def autograd(function: Callable[[Tensor], Tensor], logits_SV: Tensor) -> Tensor:
    """The gradient of a scalar function of the logits."""
    leaf_SV = logits_SV.detach().clone().requires_grad_()
    (gradient_SV,) = torch.autograd.grad(function(leaf_SV), leaf_SV)
    return gradient_SV


def loss_gradient(
    world: World,
    method: PolicyGradient,
    feed: tuple[Texts, list[int], Tensor],
    *,
    phi_S: Tensor | None = None,
    sampler_SV: Tensor | None = None,
    gae_lambda: float = 1.0,
    running_mean: float = 0.0,
) -> Tensor:
    """What `backward()` of the production loss gives on the weighted texts: its expected gradient."""
    texts, groups, weights_B = feed
    scored = world.scored(texts, groups, phi_S=phi_S, sampler_SV=sampler_SV)
    proximal_BT = world.lm.token_logprobs(world.logits_SV, texts).detach()
    advantages_BT = compute_advantages(
        method,
        scored,
        beta=world.beta,
        gae_lambda=gae_lambda,
        running_mean=running_mean,
        proximal_logprobs_BT=proximal_BT,
        weights_B=weights_B,
    )
    batch = PolicyBatch.make(method, scored, proximal_BT, advantages_BT, beta=world.beta, weights_B=weights_B)

    def loss(logits_SV: Tensor) -> Tensor:
        full_kl_BT = None
        if method.kl is not None and method.kl.estimator == "full":
            logprobs_SV = logits_SV.log_softmax(-1)
            gaps_SV = logprobs_SV - world.ref_logits_SV.log_softmax(-1)
            full_kl_BT = (logprobs_SV.exp() * gaps_SV).sum(-1)[texts.states_BT]
        logprobs_BT = world.lm.token_logprobs(logits_SV, texts)
        return policy_loss(method, logprobs_BT, batch, full_kl_BT=full_kl_BT).loss

    return autograd(loss, world.logits_SV)


def relative_error(given: Tensor, expected: Tensor) -> float:
    return float((given - expected).norm() / expected.norm())


def misalignment(given: Tensor, expected: Tensor) -> float:
    """Relative error after the best positive factor; 1 when none helps."""
    factor = float((given * expected).sum() / (given * given).sum())
    return relative_error(max(factor, 0.0) * given, expected)
