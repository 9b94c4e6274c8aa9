"""How one iteration moves the policy: fresh samples only, some passes over them, and no further than it may go."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from rewardloop.errors import TrainingError
from rewardloop.functional.advantages import update_running_mean
from rewardloop.hardware import compute_dtype
from rewardloop.loop.journal import above, below
from rewardloop.loop.recipe import Recipe
from rewardloop.loop.seeds import derive_rng
from rewardloop.models.language_model import LanguageModel
from rewardloop.optimize.bounds import (
    LEAST_ESS,
    MAX_APPROX_KL,
    MOST_LAG,
    Freshness,
    check_agreement,
    draw_back,
    keep_weights,
    measure_freshness,
    step_kl,
    step_limit,
)
from rewardloop.optimize.policy_gradient import (
    METHODS,
    LossOutput,
    PolicyBatch,
    PolicyGradient,
    compute_advantages,
    compute_returns,
    policy_loss,
)
from rewardloop.optimize.update import Updater, UpdateReport, UpdateSettings
from rewardloop.reward.scoring import padded
from rewardloop.types import ScoredRollout

WARM_UP = 12  # optimizer steps
DROPS_IN_A_ROW = 3  # then something is wrong that dropping does not mend
DRAWS_BACK, ENOUGH = 4, 1.1  # the square law that shortens a step holds for small ones: large ones take a few
LEAST_SHARE, REGAIN = 0.1, 1.1  # of the learning rate, from one iteration to the next


class Mover:
    """The optimizer of the policy and what it remembers from batch to batch."""

    def __init__(self, policy: LanguageModel, recipe: Recipe) -> None:
        self.policy = policy
        self.recipe = recipe
        settings = recipe.optimizer
        self.method = METHODS[settings.method]
        self.updater = Updater(
            policy,
            UpdateSettings(
                lr=settings.lr or usual_lr(sum(weight.numel() for weight in policy.model.parameters())),
                warm_up=WARM_UP,
                tokens_per_microbatch=settings.tokens_per_microbatch,
                precision=recipe.precision,
            ),
        )
        self.running_mean = 0.0
        self.dropped_batches = 0
        self._dropped_in_a_row = 0

    def move(
        self,
        scored: ScoredRollout,
        *,
        beta: float,
        gae_lambda: float,
        iteration: int,
        weight_version: int,
        lr_share: float = 1.0,
    ) -> dict[str, float]:
        """Move the policy on this batch, or drop it where it is too far from the policy; what that did.

        `iteration` seeds the minibatches; `lr_share`, in [0, 1], is how much of the learning rate is left.

        Raises TrainingError where the engine that sampled does not agree with the policy as it is trained, and at the
        third batch in a row that had to be dropped.
        """
        proximal_BT = self.logprobs(scored)
        fresh = self._freshness(scored, proximal_BT, weight_version)
        if not fresh.usable:
            self._drop(fresh)
            return self._metrics(fresh, None, 0.0)
        self._dropped_in_a_row = 0
        method = _with_foresight(self.method, gae_lambda)
        advantages_BT = compute_advantages(
            method,
            scored,
            beta=beta,
            gae_lambda=gae_lambda,
            running_mean=self.running_mean,
            proximal_logprobs_BT=proximal_BT,
        )
        returns_BT = compute_returns(method, scored, beta=beta, gae_lambda=gae_lambda)
        self.running_mean = update_running_mean(self.running_mean, returns_BT)
        batch = PolicyBatch.make(method, scored, proximal_BT, advantages_BT, beta=beta)
        before = keep_weights(self.policy)
        report = self._epochs(scored, method, batch, iteration, lr_share)
        return self._metrics(fresh, report, self._hold_back(scored, proximal_BT, before))

    def logprobs(self, scored: ScoredRollout, rows: slice = slice(None)) -> Tensor:
        """Of the policy as it is, computed as in training."""
        completions = scored.rollout.completions[rows]
        return self.updater.logprobs(
            [c.prompt_ids for c in completions],
            [c.token_ids for c in completions],
            temperature=self.recipe.sampling.temperature,
        )

    def tensors(self) -> dict[str, Tensor]:
        """All but the policy's weights, ready for safetensors; see `restore`."""
        numbers = [self.running_mean, self.dropped_batches, self._dropped_in_a_row, self.updater.pace]
        memory = torch.tensor(numbers, dtype=torch.float64)
        return above("optimizer.", self.updater.state_tensors()) | {"memory": memory}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on where `tensors` was taken, bit for bit."""
        self.updater.load_state_tensors(below(state, "optimizer."))
        self.running_mean, dropped, in_a_row, self.updater.pace = state["memory"].tolist()
        self.dropped_batches, self._dropped_in_a_row = int(dropped), int(in_a_row)

    # ---------------------------------------------------------------- parts of a move

    def _freshness(self, scored: ScoredRollout, proximal_BT: Tensor, weight_version: int) -> Freshness:
        versions = [torch.from_numpy(c.weight_versions_T) for c in scored.rollout.completions]
        fresh = measure_freshness(
            proximal_BT,
            scored.old_logprobs_BT,
            scored.completion_mask_BT,
            padded(versions).to(proximal_BT.device),
            weight_version,
        )
        if compute_dtype(self.recipe.precision, self.policy.device) == torch.float32:
            check_agreement(fresh.log_ratio)
        return fresh

    def _drop(self, fresh: Freshness) -> None:
        self.dropped_batches += 1
        self._dropped_in_a_row += 1
        if self._dropped_in_a_row >= DROPS_IN_A_ROW:
            raise TrainingError(
                f"{self._dropped_in_a_row} batches in a row were too far from the policy to learn from: the last was "
                f"{fresh.lag} weight versions old (at most {MOST_LAG}) with an effective share of {fresh.ess:.2f} (at "
                f"least {LEAST_ESS}); sample with fresher weights, in float32, or shorter completions"
            )

    def _epochs(
        self, scored: ScoredRollout, method: PolicyGradient, batch: PolicyBatch, iteration: int, lr_share: float
    ) -> UpdateReport:
        """Passes over the batch in minibatches; the report of the last step."""
        settings, completions = self.recipe.optimizer, scored.rollout.completions
        rng = derive_rng(self.recipe.seed, "minibatches", iteration)
        report: UpdateReport | None = None
        for _ in range(settings.epochs):
            for rows in torch.from_numpy(rng.permutation(len(completions))).tensor_split(settings.minibatches):
                part = [completions[row] for row in rows.tolist()]
                report = self.updater.step(
                    [c.prompt_ids for c in part],
                    [c.token_ids for c in part],
                    partial(_loss, method, batch.minibatch(rows)),
                    temperature=self.recipe.sampling.temperature,
                    lr_share=lr_share,
                )
            assert report is not None
            if report.metrics.get("approx_kl", 0.0) > MAX_APPROX_KL:
                break
        assert report is not None
        return report

    def _hold_back(self, scored: ScoredRollout, before_BT: Tensor, before: dict[str, Tensor]) -> float:
        """Draw the policy back where this iteration moved it too far; returns the nats per sequence that are left.

        Measured on one completion of each prompt. The next steps are shortened by the same share, so that all of them
        count, and grow back slowly.
        """
        rows = slice(None, None, self.recipe.sampling.group_size)
        before_BT, mask_BT = before_BT[rows], scored.completion_mask_BT[rows]
        limit = step_limit(self.recipe.optimizer.target_kl, mask_BT)
        moved, share = self._moved(scored, before_BT, rows), 1.0
        for _ in range(DRAWS_BACK):
            if moved > ENOUGH * limit:
                share *= draw_back(self.policy, before, moved, limit)
                moved = self._moved(scored, before_BT, rows)
        pace = self.updater.pace * (max(share, LEAST_SHARE) if share < 1 else REGAIN)
        self.updater.pace = min(pace, 1.0)
        return moved

    def _moved(self, scored: ScoredRollout, before_BT: Tensor, rows: slice) -> float:
        after_BT = self.logprobs(scored, rows)
        width = after_BT.shape[1]
        return step_kl(before_BT[:, :width], after_BT, scored.completion_mask_BT[rows, :width])

    def _metrics(self, fresh: Freshness, report: UpdateReport | None, moved: float) -> dict[str, float]:
        """Without a report, the batch was dropped."""
        found = report.metrics if report else {}
        return {
            "policy/loss": report.loss if report else 0.0,
            "policy/grad_norm": report.grad_norm if report else 0.0,
            "policy/approx_kl": found.get("approx_kl", 0.0),
            "policy/clip_fraction": found.get("clip_fraction", 0.0),
            "policy/step_kl": moved,
            "policy/pace": self.updater.pace,
            "policy/ess": fresh.ess,
            "policy/engine_log_ratio": fresh.log_ratio,
            "policy/version_lag": float(fresh.lag),
            "policy/dropped_batches": float(self.dropped_batches),
            "policy/skipped_steps": float(self.updater.skipped_steps),
        }


def _loss(method: PolicyGradient, batch: PolicyBatch, logprobs_BT: Tensor, rows: Tensor) -> LossOutput:
    """The loss of some rows of a minibatch, as the update asks for it."""
    return policy_loss(method, logprobs_BT, batch.rows(rows))


def _with_foresight(method: PolicyGradient, gae_lambda: float) -> PolicyGradient:
    """Where phi has earned a lambda below 1 it is the baseline: siblings at the same place of other texts add noise."""
    return replace(method, baseline="none") if method.baseline == "loo_pos" and gae_lambda < 1 else method


def usual_lr(parameters: int) -> float:
    """At the start of a run: 4e-4 for a million parameters, 1.2e-4 for 3M, 2e-5 for 15M, 3e-6 for large models."""
    return float(min(4e-4, max(3e-6, 4e-4 * (1e6 / max(parameters, 1)) ** 1.1)))
