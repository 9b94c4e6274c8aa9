"""The last PPOTrainer of TRL (1.12): `python -m contenders.trl_ppo MODEL STEPS`.

As it comes, but for what is computed in: see harness.common_precision.

The policy and its reference are the model; the value model, which PPO needs and TRL keeps apart, has the same
trunk. The reward costs as little as everybody's: a reward model that only looks at the tokens.
"""

from __future__ import annotations

import sys
import tempfile
from types import SimpleNamespace

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer

from contenders import work
from harness import announce_step, common_precision


class Announce(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        announce_step()


class TokenReward(torch.nn.Module):
    """As much of a reward model as TRL looks at: a backbone, and a head for its last hidden states."""

    base_model_prefix = "backbone"

    def backbone(self, input_ids, **_: object) -> SimpleNamespace:
        sevens_BS = (input_ids % 10 == 7).float()
        return SimpleNamespace(hidden_states=(sevens_BS.cumsum(-1).unsqueeze(-1) / 10,))

    def score(self, hidden_BS1):
        return hidden_BS1


def main(model: str, steps: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    prompts = tokenizer(work.make_prompts(work.SEQUENCES * steps))["input_ids"]
    with tempfile.TemporaryDirectory() as folder:
        config = PPOConfig(
            output_dir=folder,
            total_episodes=work.SEQUENCES * steps,
            per_device_train_batch_size=work.SEQUENCES,
            gradient_accumulation_steps=1,
            num_ppo_epochs=1,
            response_length=work.NEW_TOKENS,
            temperature=1.0,
            learning_rate=work.LEARNING_RATE,
            num_sample_generations=0,
            bf16=common_precision() == "bfloat16",
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
            save_strategy="no",
        )
        PPOTrainer(
            args=config,
            processing_class=tokenizer,
            model=AutoModelForCausalLM.from_pretrained(model),
            ref_model=AutoModelForCausalLM.from_pretrained(model),
            reward_model=TokenReward(),
            value_model=AutoModelForSequenceClassification.from_pretrained(model, num_labels=1),
            train_dataset=Dataset.from_dict({"input_ids": prompts}),
            callbacks=[Announce()],
        ).train()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
