"""One update of the policy: `python -m contenders.update ours|transformers KIND MODEL STEPS`.

KIND is `equal`, 32 sequences of 32 + 96 tokens in groups of 8 to a prompt; `varying`, where they have 1 to 96
(mean 48); or `ungrouped`, equal with a prompt for each. PPO's clipped loss, gradient clipping, AdamW.
`transformers` is what one writes with that library: right-padded, bfloat16 autocast where the hardware has
bfloat16, the logits of the completions only. The first step announced is a tiny one: model and optimizer are
then in memory.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from contenders import work
from harness import announce_step, common_precision, forget_peak
from rewardloop.functional.losses import Clip, LossOutput, surrogate
from rewardloop.hardware import keep_large_blocks
from rewardloop.models.language_model import load_language_model
from rewardloop.optimize.update import Updater, UpdateSettings

VOCABULARY = 32_000


@dataclass(frozen=True, eq=False)
class Batch:
    prompt_ids: list[list[int]]
    token_ids: list[list[int]]
    old_logprobs_BT: Tensor
    advantages_BT: Tensor
    completion_mask_BT: Tensor

    def loss(self, logprobs_BT: Tensor, rows: Tensor) -> LossOutput:
        width = logprobs_BT.shape[1]
        values_BT, _ = surrogate(
            logprobs_BT,
            self.old_logprobs_BT[rows, :width],
            self.advantages_BT[rows, :width],
            self.completion_mask_BT[rows, :width],
            level="token",
            bound=Clip(),
        )
        return LossOutput(-values_BT.sum() / self.completion_mask_BT.sum(), {})


def make_batch(lengths: Sequence[int], group_size: int = work.GROUP_SIZE) -> Batch:
    rng = random.Random(0)
    draw = torch.Generator().manual_seed(0)
    prompts, completions = (
        [[rng.randrange(4, VOCABULARY) for _ in range(length)] for length in sizes]
        for sizes in ([work.PROMPT_TOKENS] * len(lengths), lengths)
    )
    prompts = [prompts[row - row % group_size] for row in range(len(prompts))]
    mask_BT = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    noise_BT, advantages_BT = torch.randn(2, *mask_BT.shape, generator=draw)
    return Batch(prompts, completions, -10.4 + 0.1 * noise_BT, advantages_BT, mask_BT)


def completion_lengths(kind: str) -> list[int]:
    if kind != "varying":
        return [work.NEW_TOKENS] * work.SEQUENCES
    rng = random.Random(1)
    lengths = [1 + (work.NEW_TOKENS - 1) * i // (work.SEQUENCES - 1) for i in range(work.SEQUENCES)]
    rng.shuffle(lengths)
    return lengths


def ours(model: Path) -> Callable[[Batch], object]:
    keep_large_blocks()  # as every command of ours does
    updater = Updater(load_language_model(model), UpdateSettings(lr=work.LEARNING_RATE))
    return lambda batch: updater.step(batch.prompt_ids, batch.token_ids, batch.loss)


def transformers(folder: Path) -> Callable[[Batch], object]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    autocast = common_precision() == "bfloat16"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=work.LEARNING_RATE, weight_decay=0.0)

    def step(batch: Batch) -> None:
        sequences = [torch.tensor(p + t) for p, t in zip(batch.prompt_ids, batch.token_ids, strict=True)]
        ids_BS = pad_sequence(sequences, batch_first=True).to(device)
        real_BS = pad_sequence([torch.ones_like(each) for each in sequences], batch_first=True).to(device)
        width = batch.completion_mask_BT.shape[1]
        with torch.autocast(device, dtype=torch.bfloat16, enabled=autocast):
            output = model(ids_BS, attention_mask=real_BS, logits_to_keep=width + 1, use_cache=False)
        logits_BTV = output.logits[:, :-1].float()
        target_logits_BT = logits_BTV.gather(-1, ids_BS[:, -width:, None])[..., 0]
        logprobs_BT = target_logits_BT - torch.logsumexp(logits_BTV, -1)
        batch.loss(logprobs_BT.cpu(), torch.arange(len(sequences))).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def main(contender: str, kind: str, model: Path, steps: int) -> None:
    step = {"ours": ours, "transformers": transformers}[contender](model)
    step(make_batch([2, 2]))
    forget_peak()
    announce_step()
    batch = make_batch(completion_lengths(kind), 1 if kind == "ungrouped" else work.GROUP_SIZE)
    for _ in range(steps):
        step(batch)
        announce_step()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
