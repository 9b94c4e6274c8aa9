"""Make the built-in model: python -m rewardloop.sandbox.pretrain --out DIR [--world-seed 0] [--steps 3000]

A Llama of about a million parameters learns to talk like the town, from answers that carry each of the three
defects at a known rate. Only the last answer of a conversation is learned.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rewardloop.files import written_whole
from rewardloop.sandbox.dialogues import BASE_RATES, Answer, Question, all_questions, answer, small_talk
from rewardloop.sandbox.model_card import measure, write_card
from rewardloop.sandbox.world import LANGUAGES, World, build_world
from rewardloop.types import Message

END, PAD, USER, ASSISTANT = "<|end|>", "<|pad|>", "<|user|>", "<|assistant|>"
# A system message is read as something the user said: the town has no other voices.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|assistant|>' if message.role == 'assistant' else '<|user|>' }}{{ message.content }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
VOCABULARY = 2048
CONTEXT = 512
SMALL_TALK_SHARE = 0.03
_TOKENIZER_TEXTS = 20_000
_USUAL_ANSWER = 30  # tokens
_IGNORED = -100

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Training:
    """How the model is trained."""

    steps: int = 3000
    batch: int = 32  # conversations
    muon_lr: float = 0.02
    adam_lr: float = 3e-3
    warmup: int = 50  # steps
    weight_decay: float = 0.01
    seed: int = 0


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write, a plain Hugging Face model")
    parser.add_argument("--world-seed", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="of weights and text")
    parser.add_argument("--steps", type=int, default=Training().steps)
    parser.add_argument("--threads", type=int, default=1, help="another number gives other last bits")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    pretrain(build_world(arguments.world_seed), arguments.out, Training(arguments.steps, seed=arguments.seed))


def pretrain(world: World, out: Path, training: Training) -> None:
    """Train tokenizer and model on text of `world` and save both in `out`."""
    questions = all_questions(world)
    rng = np.random.default_rng([world.seed, training.seed])
    tokenizer = train_tokenizer(world, questions, rng)
    torch.manual_seed(training.seed)
    model = LlamaForCausalLM(build_config(tokenizer))
    logger.info("%.2f M parameters, %d tokens", sum(p.numel() for p in model.parameters()) / 1e6, len(tokenizer))
    started = time.monotonic()
    _train(model, tokenizer, _write_conversations(world, questions, rng), training)
    model.half().float()  # what is measured is what is stored
    minutes = (time.monotonic() - started) / 60
    measured = measure(model, tokenizer, world)
    logger.info("%s", measured)
    save(model, tokenizer, out, write_card(measured, world, _describe_command(world, training), minutes))


def train_tokenizer(world: World, questions: Sequence[Question], rng: np.random.Generator) -> PreTrainedTokenizerFast:
    """A byte-level BPE over the town's text: any text can be written with it, the town's in few tokens."""
    conversations = _write_conversations(world, questions, rng)
    texts = (text for _ in range(_TOKENIZER_TEXTS) for text in _texts(*next(conversations)))
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[END, PAD, USER, ASSISTANT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Llama, 4 layers of width 128, tied embeddings."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path, card: str) -> None:
    """Write a plain Hugging Face folder, whole or not at all; float16 halves it and loses nothing that matters."""
    with written_whole(out) as folder:
        folder.mkdir()
        (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
        model.half().save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _describe_command(world: World, training: Training) -> str:
    return (
        f"python -m rewardloop.sandbox.pretrain --out DIR --world-seed {world.seed} --seed {training.seed} "
        f"--steps {training.steps}"
    )


# ---------------------------------------------------------------- text


def _write_conversations(
    world: World, questions: Sequence[Question], rng: np.random.Generator
) -> Iterator[tuple[tuple[Message, ...], Answer]]:
    """Endless conversations: questions without repetition until all were asked, small talk in between."""
    while True:
        for index in rng.permutation(len(questions)):
            if rng.random() < SMALL_TALK_SHARE:
                yield small_talk(world, LANGUAGES[int(rng.integers(len(LANGUAGES)))], rng, BASE_RATES)
            question = questions[int(index)]
            yield question.prompt, answer(world, question, rng, BASE_RATES)


def _texts(prompt: tuple[Message, ...], reply: Answer) -> list[str]:
    return [*(message.content for message in prompt), reply.text]


def _encode(
    tokenizer: PreTrainedTokenizerFast, prompt: tuple[Message, ...], reply: Answer
) -> tuple[list[int], list[int]]:
    """Token ids and labels; everything before the last answer is ignored."""
    marks = {"user": USER, "system": USER, "assistant": ASSISTANT}
    before = "".join(f"{marks[message.role]}{message.content}{END}" for message in prompt) + ASSISTANT
    prompt_ids = tokenizer(before, add_special_tokens=False)["input_ids"]
    reply_ids = [*tokenizer(reply.text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return prompt_ids + reply_ids, [_IGNORED] * len(prompt_ids) + reply_ids


def _batches(
    tokenizer: PreTrainedTokenizerFast, conversations: Iterator[tuple[tuple[Message, ...], Answer]], size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of similar length, so that little is padded; padding is on the right and needs no mask."""
    while True:
        pool = sorted((_encode(tokenizer, *next(conversations)) for _ in range(16 * size)), key=lambda e: len(e[0]))
        groups = [pool[start : start + size] for start in range(0, len(pool), size)]
        order = torch.randperm(len(groups)).tolist()
        for group in (groups[index] for index in order):
            yield (
                _pad([ids for ids, _ in group], tokenizer.pad_token_id),
                _pad([labels for _, labels in group], _IGNORED),
            )


def _pad(rows: Sequence[list[int]], value: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


# ---------------------------------------------------------------- training


def _train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    conversations: Iterator[tuple[tuple[Message, ...], Answer]],
    training: Training,
) -> None:
    optimizers = _build_optimizers(model, training)
    batches, started = _batches(tokenizer, conversations, training.batch), time.monotonic()
    model.train()
    for step in range(1, training.steps + 1):
        ids_BS, labels_BS = next(batches)
        loss = _loss(model, ids_BS, labels_BS)
        model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, peak_lr in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak_lr * _schedule(step, training)
            optimizer.step()
        if step % 100 == 0:
            logger.info("step %d  loss %.3f  %.0f s", step, loss.item(), time.monotonic() - started)
    model.eval()


def _build_optimizers(model: LlamaForCausalLM, training: Training) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the matrices of the blocks, which learns the facts in a third of AdamW's steps; AdamW for the rest."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    known = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in known]
    decay = training.weight_decay
    return [
        (torch.optim.Muon(matrices, lr=training.muon_lr, weight_decay=decay), training.muon_lr),
        (torch.optim.AdamW(others, lr=training.adam_lr, betas=(0.9, 0.98), weight_decay=decay), training.adam_lr),
    ]


def _loss(model: LlamaForCausalLM, ids_BS: torch.Tensor, labels_BS: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the answer tokens over a constant, so that every token weighs the same in every batch.

    A mean would favor the tokens of batches of short answers, and with them answers without drift and rudeness.
    The head is applied to answer tokens alone.
    """
    hidden_BSD = model.model(ids_BS, use_cache=False).last_hidden_state
    targets = labels_BS[:, 1:]
    kept = targets != _IGNORED
    total = torch.nn.functional.cross_entropy(model.lm_head(hidden_BSD[:, :-1][kept]), targets[kept], reduction="sum")
    return total / (_USUAL_ANSWER * len(ids_BS))


def _schedule(step: int, training: Training) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine to zero."""
    if step <= training.warmup:
        return step / training.warmup
    progress = (step - training.warmup) / max(1, training.steps - training.warmup)
    return 0.5 * (1 + math.cos(math.pi * progress))


if __name__ == "__main__":
    main()
