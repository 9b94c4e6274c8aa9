"""One policy iteration: sample, score, phi, advantage, update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from rewardloop.functional.divergences import adapt_beta
from rewardloop.loop.journal import above, below
from rewardloop.loop.movement import Mover
from rewardloop.loop.recipe import Recipe
from rewardloop.loop.seeds import derive_seed
from rewardloop.models.language_model import LanguageModel
from rewardloop.optimize.bounds import MOST_LAG
from rewardloop.reward.credit import learn_credit
from rewardloop.reward.potential import Potential, explained_variance, gate_lambda, potential_targets, state_width
from rewardloop.reward.scoring import Scoring, score_rollout
from rewardloop.rollout.engine import Engine
from rewardloop.rollout.sampling import sample_rollout
from rewardloop.types import Completion, Feedback, Prompt, RewardSource, Rollout, ScoredRollout

EV_MEMORY = 0.8  # how much of the running explained variance is kept from batch to batch


@dataclass(frozen=True, eq=False)
class Iteration:
    """What one iteration did."""

    scored: ScoredRollout
    metrics: dict[str, float]


class Learner:
    """The policy, its frozen reference, its decode engine, the potential and the optimizer, kept in step."""

    def __init__(self, policy: LanguageModel, reference: LanguageModel, recipe: Recipe) -> None:
        self.recipe = recipe
        self.policy = policy
        self.reference = reference
        self.engine = Engine(
            policy, slots=recipe.sampling.slots, precision=recipe.precision, compiled=recipe.sampling.compiled
        )
        self.mover = Mover(policy, recipe)
        self.potential = Potential.untrained(state_width(policy.model.config.hidden_size))
        self.explained = 0.0
        self.beta = recipe.optimizer.beta
        self.weight_version = 0

    def iterate(
        self,
        prompts: Sequence[Prompt],
        source: RewardSource,
        iteration: int,
        *,
        lr_share: float = 1.0,
        served: Mapping[int, Completion] = MappingProxyType({}),
    ) -> Iteration:
        """Sample from the policy on `prompts`, reward every token, move the policy.

        `lr_share`, in [0, 1]: how much of the learning rate is left. `served`: completions that were given to people
        under earlier weights; `served[i]` answers prompts[i] and takes the place of one of its samples. What the
        policy has moved since is weighed by their recorded log-probs.
        """
        rollout = _with_served(self.sample(prompts, "sample", iteration), served, self.recipe, self.weight_version)
        scoring = self.score(rollout, source)
        scored = scoring.scored
        gae_lambda = self._learn_potential(scoring)
        moves = self.mover.move(
            scored,
            beta=self.beta,
            gae_lambda=gae_lambda,
            iteration=iteration,
            weight_version=self.weight_version,
            lr_share=lr_share,
        )
        self.publish()
        kl = sequence_kl(scored)
        if self.recipe.optimizer.target_kl > 0 and self.beta > 0:
            self.beta = adapt_beta(self.beta, kl, self.recipe.optimizer.target_kl, len(scored.rollout))
        return Iteration(scored, self._metrics(scored, kl, gae_lambda) | moves)

    def sample(self, prompts: Sequence[Prompt], purpose: str, counter: int) -> Rollout:
        """A group of completions for each prompt, from the weights now in the engine."""
        sampling = self.recipe.sampling
        return sample_rollout(
            self.engine,
            prompts,
            group_size=sampling.group_size,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            seed=derive_seed(self.recipe.seed, purpose, counter),
        )

    def score(self, rollout: Rollout, source: RewardSource) -> Scoring:
        """Immediate rewards of `rollout` under the present potential (zero where the recipe is not dense)."""
        immediate = self.recipe.immediate
        return score_rollout(
            rollout,
            source,
            self.reference,
            self.potential,
            missing_end_score=immediate.missing_end_score,
            precision=self.recipe.precision,
        )

    def restart_potential(self, scoring: Scoring, feedback: Sequence[Feedback]) -> None:
        """Fit phi anew: the reward has a new version.

        It learns from scored completions of the reference, and from the places that people marked in `feedback`.
        """
        if self.recipe.immediate.dense:
            self.potential = Potential.untrained(self.potential.weights_E.numel() - 1)
            self._fit_potential(scoring)
            self.potential = learn_credit(self.potential, self.reference, feedback)

    def publish(self) -> None:
        """Bring the policy's weights into the engine."""
        self.weight_version += 1
        self.engine.load_weights(self.policy.model.state_dict(), self.weight_version)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that learning has changed, ready for safetensors; see `restore`."""
        state = above("policy.", self.policy.model.state_dict())
        state |= above("mover.", self.mover.tensors())
        state |= above("potential.", self.potential.tensors())
        state["scalars"] = torch.tensor([self.beta, self.explained, self.weight_version], dtype=torch.float64)
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue where `tensors` was taken, bit for bit."""
        self.policy.model.load_state_dict(below(state, "policy."))
        self.mover.restore(below(state, "mover."))
        self.potential = Potential.from_tensors(below(state, "potential."))
        self.beta, self.explained, version = state["scalars"].tolist()
        self.weight_version = int(version) - 1
        self.publish()

    def _learn_potential(self, scoring: Scoring) -> float:
        """Measure what phi foresaw of this batch, then let it learn from it; returns lambda."""
        if not self.recipe.immediate.dense:
            return 1.0
        scored = scoring.scored
        targets_BT, mask_BT = self._targets(scored), scored.completion_mask_BT
        explained = explained_variance(scored.phi_BT1[:, :-1], targets_BT, mask_BT)
        self.explained = EV_MEMORY * self.explained + (1 - EV_MEMORY) * explained
        self._fit_potential(scoring)
        return gate_lambda(self.explained)

    def _fit_potential(self, scoring: Scoring) -> None:
        scored = scoring.scored
        self.potential = self.potential.fitted(
            scoring.states_BT1D,
            self._targets(scored),
            scored.completion_mask_BT,
            decay=self.recipe.immediate.decay,
        )

    def _targets(self, scored: ScoredRollout) -> Tensor:
        log_ratio_BT = scored.old_logprobs_BT - scored.ref_logprobs_BT
        return potential_targets(scored.scores_B, log_ratio_BT, scored.completion_mask_BT, self.beta)

    def _metrics(self, scored: ScoredRollout, kl: float, gae_lambda: float) -> dict[str, float]:
        mask_BT = scored.completion_mask_BT
        completions = scored.rollout.completions
        return {
            "reward/score": float(scored.scores_B.mean()),
            "reward/score_sd": float(scored.scores_B.std()),
            "reward/truncated": sum(c.finish_reason != "stop" for c in completions) / len(completions),
            "potential/explained_variance": self.explained,
            "potential/gae_lambda": gae_lambda,
            "policy/kl": kl,
            "policy/beta": self.beta,
            "policy/length": float(mask_BT.sum(-1).float().mean()),
            "policy/entropy": float(-scored.old_logprobs_BT[mask_BT].mean()),
        }


def _with_served(rollout: Rollout, served: Mapping[int, Completion], recipe: Recipe, weight_version: int) -> Rollout:
    """The rollout with one sample of some groups replaced, as old as a sample may be.

    Versions are counted otherwise where they were served, so these are only marked as not the present one (below 0
    where that is the first): their distance is what the log-probs say.
    """
    completions = list(rollout.completions)
    for at, completion in served.items():
        versions_T = np.full_like(completion.weight_versions_T, weight_version - MOST_LAG)
        completions[at * recipe.sampling.group_size] = replace(completion, weight_versions_T=versions_T)
    return Rollout(tuple(completions), rollout.groups)


def sequence_kl(scored: ScoredRollout) -> float:
    """Mean over sequences of sum_t log mu/pi_ref: an unbiased estimate of KL(mu || pi_ref), nats per sequence."""
    log_ratio_BT = scored.old_logprobs_BT - scored.ref_logprobs_BT
    return float(torch.where(scored.completion_mask_BT, log_ratio_BT, 0.0).sum(-1).mean())
