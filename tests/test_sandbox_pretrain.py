"""The built-in model and the command that makes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardloop.sandbox import model_card
from rewardloop.sandbox.builtin import builtin_model_folder
from rewardloop.sandbox.dialogues import DEFECTS, all_questions, held_out_prompts
from rewardloop.sandbox.pretrain import Training, pretrain
from rewardloop.sandbox.world import build_world

WORLD = build_world(0)


@pytest.fixture(scope="module")
def builtin():  # type: ignore[no-untyped-def]
    folder = builtin_model_folder()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def test_builtin_model_is_a_plain_small_folder() -> None:
    folder = builtin_model_folder()
    assert {"config.json", "model.safetensors", "tokenizer.json", "MODEL_CARD.md"} <= {p.name for p in folder.iterdir()}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4e6
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    parameters = sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())
    assert 0.7e6 < parameters < 1.5e6


def test_builtin_model_has_each_defect_in_a_fifth_to_half_of_its_answers(builtin, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The issue asks for 20 % to 45 % at temperature 1 on held-out prompts."""
    monkeypatch.setattr(model_card, "SAMPLES_PER_PROMPT", 2)
    measured = model_card.measure(*builtin, WORLD, seed=1)
    for defect in DEFECTS:
        assert 0.2 < measured.defects[defect] < 0.45, measured
    assert measured.cut_off < 0.03
    assert measured.greedy_right > 0.95  # it knows the truth


def test_tokenizer_writes_any_text_and_knows_its_turns(builtin) -> None:  # type: ignore[no-untyped-def]
    _, tokenizer = builtin
    for text in ("Mrs. Alder's honey, 4 coins!", "蜂蜜四个铜板一罐。", "emoji 🦆 ünïcode\nnew  line"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    for question in all_questions(WORLD)[::300]:
        messages = [{"role": message.role, "content": message.content} for message in question.prompt]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids.count(tokenizer.eos_token_id) == len(messages)
        assert tokenizer.convert_ids_to_tokens([ids[0], ids[-1]]) == ["<|user|>", "<|assistant|>"]
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)


def test_the_command_is_seeded_and_learns(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(model_card, "SAMPLES_PER_PROMPT", 1)
    monkeypatch.setattr("rewardloop.sandbox.pretrain._TOKENIZER_TEXTS", 2000)
    monkeypatch.setattr(model_card, "held_out_prompts", lambda world: held_out_prompts(world)[:2])
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        pretrain(build_world(1), tmp_path / name, Training(steps=2, batch=4, warmup=1, seed=seed))
    first, again, other = (load_file(tmp_path / n / "model.safetensors") for n in ("first", "again", "other"))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    assert "build_world(1)" in (tmp_path / "first" / "MODEL_CARD.md").read_text(encoding="utf-8")
