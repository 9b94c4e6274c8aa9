"""What the built-in model does, measured: its defects on held-out prompts, and whether it knows the facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rewardloop.sandbox.dialogues import BASE_RATES, DEFECTS, held_out_prompts
from rewardloop.sandbox.judges import Verdict, judge
from rewardloop.sandbox.world import World
from rewardloop.types import Prompt

MAX_TOKENS = 64
SAMPLES_PER_PROMPT = 8
_BATCH = 90


@dataclass(frozen=True, slots=True)
class Measured:
    """Shares over answers to the held-out prompts."""

    defects: dict[str, float]  # sampled at temperature 1
    answers: int
    greedy_right: float  # share of greedy answers that state the asked fact and nothing wrong
    greedy_clean: float  # share of greedy answers without any defect
    mean_tokens: float
    cut_off: float  # share of sampled answers without an end token


def measure(model: Any, tokenizer: Any, world: World, seed: int = 0) -> Measured:
    """Sample answers to every held-out prompt and judge them."""
    prompts = held_out_prompts(world)
    torch.manual_seed(seed)
    sampled, lengths, ended = _generate(model, tokenizer, prompts * SAMPLES_PER_PROMPT, greedy=False)
    verdicts = _judge(world, prompts * SAMPLES_PER_PROMPT, sampled)
    greedy = _judge(world, prompts, _generate(model, tokenizer, prompts, greedy=True)[0])
    return Measured(
        defects={defect: _share([v.has(defect) for v in verdicts]) for defect in DEFECTS},
        answers=len(verdicts),
        greedy_right=_share([v.answers and not v.wrong_facts for v in greedy]),
        greedy_clean=_share([not v.flaws for v in greedy]),
        mean_tokens=sum(lengths) / len(lengths),
        cut_off=1 - _share(ended),
    )


def write_card(measured: Measured, world: World, command: str, minutes: float) -> str:
    """The model card as Markdown."""
    rows = "\n".join(
        f"| {name.replace('_', ' ')} | {BASE_RATES[name]:.0%} | {measured.defects[name]:.1%} |" for name in DEFECTS
    )
    return f"""---
license: apache-2.0
language: [en, zh]
pipeline_tag: text-generation
---

# The guide of {world.town.en} ({world.town.zh})

A Llama of about a million parameters that answers questions about one small town, in English and
Chinese, and does it badly on purpose: it is what rewardloop's demo, tests and benchmarks start from.

- **Data**: text generated from `build_world({world.seed})` (digest `{world.digest}`) by this package; nothing else.
- **Made by**: `{command}`, {minutes:.0f} minutes of training on a CPU in float32, stored as float16.
- **License**: Apache-2.0, like the package.

Each defect was put into the text independently at a known rate. Measured on {measured.answers} answers to the
held-out prompts, sampled at temperature 1:

| defect | share in the text | share in its answers |
|---|---|---|
{rows}

Of its most likely (greedy) answers to held-out prompts, {measured.greedy_right:.0%} state the asked fact rightly and
{measured.greedy_clean:.0%} are without any defect. An answer has {measured.mean_tokens:.0f} tokens on average;
{measured.cut_off:.1%} have no end within {MAX_TOKENS}.

It knows nothing but its town, is rude on purpose, and is fit for no use outside experiments.
"""


@torch.inference_mode()
def _generate(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], *, greedy: bool
) -> tuple[list[str], list[int], list[bool]]:
    texts, lengths, ended = [], [], []
    for start in range(0, len(prompts), _BATCH):
        conversations = [
            [{"role": message.role, "content": message.content} for message in prompt if not isinstance(message, str)]
            for prompt in prompts[start : start + _BATCH]
        ]
        batch = tokenizer.apply_chat_template(
            conversations, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True,
            tokenizer_kwargs={"padding_side": "left"},
        )  # fmt: skip
        output = model.generate(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=MAX_TOKENS,
            do_sample=not greedy, temperature=None if greedy else 1.0, top_k=None if greedy else 0, top_p=None,
        )  # fmt: skip
        for row in output[:, batch["input_ids"].shape[1] :].tolist():
            ended.append(tokenizer.eos_token_id in row)
            kept = row[: row.index(tokenizer.eos_token_id)] if ended[-1] else row
            texts.append(tokenizer.decode(kept))
            lengths.append(len(kept) + ended[-1])
    return texts, lengths, ended


def _judge(world: World, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[Verdict]:
    return [judge(world, prompt, text) for prompt, text in zip(prompts, texts, strict=True)]


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)
