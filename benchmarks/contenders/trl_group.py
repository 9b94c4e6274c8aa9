"""TRL's GRPOTrainer and RLOOTrainer: `python -m contenders.trl_group grpo|rloo MODEL STEPS`.

As they come, but for what is computed in: see harness.common_precision.
"""

from __future__ import annotations

import sys
import tempfile

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from contenders import work
from harness import announce_step, common_precision

TRAINERS = {"grpo": (GRPOTrainer, GRPOConfig), "rloo": (RLOOTrainer, RLOOConfig)}


class Announce(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        announce_step()


def rewards(completions: list[str], **_: object) -> list[float]:
    return [work.reward(completion) for completion in completions]


def main(method: str, model: str, steps: int) -> None:
    trainer_class, config_class = TRAINERS[method]
    with tempfile.TemporaryDirectory() as folder:
        config = config_class(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=work.SEQUENCES,
            num_generations=work.GROUP_SIZE,
            max_completion_length=work.NEW_TOKENS,
            learning_rate=work.LEARNING_RATE,
            bf16=common_precision() == "bfloat16",
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
            save_strategy="no",
        )
        trainer_class(
            model=model,
            reward_funcs=rewards,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": work.make_prompts(work.PROMPTS * steps)}),
            callbacks=[Announce()],
        ).train()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
