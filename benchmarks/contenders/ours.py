"""rewardloop's own training step: `python -m contenders.ours default|grpo|rloo MODEL STEPS`.

`default` is what `rewardloop optimize` runs: the learner, with its reference, potential and adaptive beta.
`grpo` and `rloo` do what TRL's trainers of these names do by default: no reference for GRPO, beta 0.05
for RLOO.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch

from contenders import work
from harness import announce_step
from rewardloop.hardware import set_up_threads
from rewardloop.loop.learner import Learner
from rewardloop.loop.recipe import Immediate, Optimizer, Recipe, Sampling
from rewardloop.models.language_model import LanguageModel, freeze_copy, load_language_model
from rewardloop.models.packed import forward_completions
from rewardloop.optimize.policy_gradient import METHODS, PolicyBatch, compute_advantages, policy_loss
from rewardloop.optimize.update import Updater, UpdateSettings
from rewardloop.reward.scoring import lengths_mask, padded
from rewardloop.reward.sources import Rule
from rewardloop.rollout.engine import Engine
from rewardloop.rollout.sampling import sample_rollout
from rewardloop.types import ScoredRollout

BETA: Final = {"grpo": 0.0, "rloo": 0.05}  # TRL's defaults
REWARD: Final = Rule("sevens", lambda prompt, completion: work.reward(completion))

Step = Callable[[Sequence[str], int], object]


def main(method: str, model: Path, steps: int) -> None:
    set_up_threads(int(os.environ["OMP_NUM_THREADS"]))  # as the command line does
    policy = load_language_model(model)
    step = default_step(policy) if method == "default" else group_step(policy, method)
    prompts = work.make_prompts(work.PROMPTS * steps)
    for number in range(steps):
        step(prompts[number * work.PROMPTS : (number + 1) * work.PROMPTS], number)
        announce_step()


def default_step(policy: LanguageModel) -> Step:
    recipe = Recipe(
        sampling=Sampling(prompts=work.PROMPTS, group_size=work.GROUP_SIZE, max_tokens=work.NEW_TOKENS),
        immediate=Immediate(missing_end_score=None),
        optimizer=Optimizer(lr=work.LEARNING_RATE, epochs=1, minibatches=1),
    )
    learner = Learner(policy, freeze_copy(policy), recipe)
    return lambda prompts, number: learner.iterate(prompts, REWARD, number)


def group_step(policy: LanguageModel, name: str) -> Step:
    method, beta = METHODS[name], BETA[name]
    reference = freeze_copy(policy) if beta else None
    engine = Engine(policy, slots=work.SEQUENCES, max_length=work.PROMPT_TOKENS + work.NEW_TOKENS)
    updater = Updater(policy, UpdateSettings(lr=work.LEARNING_RATE))

    def step(prompts: Sequence[str], number: int) -> None:
        scored = sample_and_score(engine, prompts, number, reference)
        advantages_BT = compute_advantages(method, scored, beta=beta)
        batch = PolicyBatch.make(method, scored, None, advantages_BT, beta=beta)
        completions = scored.rollout.completions
        updater.step(
            [completion.prompt_ids for completion in completions],
            [completion.token_ids for completion in completions],
            lambda logprobs_BT, rows: policy_loss(method, logprobs_BT, batch.rows(rows)),
        )
        engine.load_weights(policy.model.state_dict(), number + 1)

    return step


def sample_and_score(
    engine: Engine, prompts: Sequence[str], number: int, reference: LanguageModel | None
) -> ScoredRollout:
    """What these methods need of a scored rollout: one score for each sequence, no potential."""
    rollout = sample_rollout(engine, prompts, group_size=work.GROUP_SIZE, max_tokens=work.NEW_TOKENS, seed=number)
    completions = rollout.completions
    scores = REWARD.score([each.prompt for each in completions], [each.text for each in completions])
    old_logprobs_BT = padded([torch.from_numpy(each.logprobs_T) for each in completions])
    ref_logprobs_BT = old_logprobs_BT
    if reference is not None:
        prompt_ids, token_ids = zip(*((each.prompt_ids, each.token_ids) for each in completions), strict=True)
        ref_logprobs_BT = forward_completions(reference.model, prompt_ids, token_ids, precision="auto").logprobs_BT
    mask_BT = lengths_mask([len(each.token_ids) for each in completions], old_logprobs_BT.device)
    zeros_BT = torch.zeros_like(old_logprobs_BT)
    return ScoredRollout(
        rollout=rollout,
        scores_B=torch.from_numpy(scores).float(),
        phi_BT1=torch.nn.functional.pad(zeros_BT, (0, 1)),
        rewards_BT=zeros_BT,
        old_logprobs_BT=old_logprobs_BT,
        ref_logprobs_BT=ref_logprobs_BT,
        completion_mask_BT=mask_BT,
        reward_version=REWARD.version,
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
