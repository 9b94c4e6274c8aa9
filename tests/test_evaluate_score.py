"""`rewardloop score`: rewards against a plain forward, the worked example, files and forms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from rewardloop.cli.score import join, json_line, read_texts, score
from rewardloop.errors import ConfigError, DataError, ModelError
from rewardloop.evaluate.token_rewards import TokenRewards
from rewardloop.evaluate.typicality import TYPICALITY, shift, typicality
from rewardloop.models.language_model import LanguageModel, freeze_copy, load_language_model
from rewardloop.sandbox.builtin import builtin_model_folder
from rewardloop.types import Message, Prompt

QUESTION = (Message("user", "Where can I buy honey?"),)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_language_model(builtin_model_folder(), device="cpu")


def by_characters(prompt: Prompt, completion: str) -> TokenRewards:
    """A scorer for tests: one token a character, vowels are good."""
    rewards = tuple(1.0 if letter in "aeiou" else -0.5 for letter in completion)
    return TokenRewards(prompt, completion, tuple((i, i + 1) for i in range(len(completion))), rewards)


def captured(console: Console, *args: object, **options: object) -> str:
    with console.capture() as shown:
        score(*args, console, **options)  # type: ignore[arg-type]
    return shown.get()


def test_typicality_equals_a_plain_forward(model: LanguageModel) -> None:
    text = "Mrs. Alder keeps the honey. 蜂蜜在街角。"
    scored = typicality(model)(QUESTION, text)
    prompt_ids, token_ids = model.encode_prompt(QUESTION), model.encode_completion(text)[:-1]
    with torch.no_grad():
        logits = model.model(torch.tensor([[*prompt_ids, *token_ids]])).logits[0].double()
    probabilities = torch.softmax(logits, dim=-1)
    for t, token in enumerate(token_ids):
        place = probabilities[len(prompt_ids) + t - 1]
        mean_log = float((place * place.log()).sum())  # what the model expects of its own choice
        assert scored.rewards[t] == pytest.approx(float(place[token].log()) - mean_log, abs=1e-4)
    assert scored.completion == text
    assert len(scored.offsets) == len(token_ids)


def test_later_words_do_not_change_earlier_rewards(model: LanguageModel) -> None:
    scorer = typicality(model)
    short, long = scorer(QUESTION, "Mrs. Alder"), scorer(QUESTION, "Mrs. Alder sells honey, you donkey!")
    assert long.rewards[: len(short.rewards) - 1] == pytest.approx(short.rewards[:-1], abs=1e-5)


def test_shift_is_the_difference_of_two_models(model: LanguageModel) -> None:
    other = freeze_copy(model)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.mul_(0.9)
    moved = shift(model, other)(QUESTION, "honey")
    back = shift(other, model)(QUESTION, "honey")
    assert moved.rewards == pytest.approx([-value for value in back.rewards], abs=1e-5)
    assert max(abs(value) for value in moved.rewards) > 0.01
    assert shift(model, freeze_copy(model))(QUESTION, "honey").rewards == pytest.approx(
        [0.0] * len(moved.rewards), abs=1e-6
    )


@pytest.mark.data
def test_the_cat_sat_on_the_mat(shared: Path) -> None:
    """The worked example of docs/evaluation.md."""
    scorer = typicality(load_language_model(shared / "models" / "stories3M", device="cpu"))
    prompt = "The cat sat on the"
    mat = scorer(prompt, join(prompt, "mat"))
    for absurd in ("parliament", "equation", "volcano"):
        strange = scorer(prompt, join(prompt, absurd))
        assert sum(mat.rewards) > sum(strange.rewards) + 2
        assert mat.rewards[0] > strange.rewards[0] + 2


def test_a_whole_text_and_a_text_too_long(model: LanguageModel) -> None:
    whole = typicality(model)("", "Where can I buy honey?")
    assert whole.completion.strip() == "Where can I buy honey?"
    with pytest.raises(DataError, match="empty text"):
        typicality(model)(QUESTION, "")
    with pytest.raises(ModelError, match="shorten"):
        typicality(model)(QUESTION, "honey " * 2000)


@pytest.mark.parametrize(
    ("prompt", "completion", "expected"),
    [
        ("The cat sat on the", "mat", " mat"),
        ("The cat sat on the ", "mat", "mat"),
        ("The cat sat on the", " mat", " mat"),
        ("The cat sat", ", then", ", then"),
        ("床前明月", "光", "光"),
        ("", "Once", "Once"),
    ],
)
def test_a_space_goes_between_two_words(prompt: str, completion: str, expected: str) -> None:
    assert join(prompt, completion) == expected


def test_forms(tmp_path: Path) -> None:
    console = Console(width=80, color_system=None)
    texts: list[tuple[Prompt, str]] = [("x", "bad"), (QUESTION, "egg")]
    shown = captured(console, texts, by_characters, "vowels are good", numbers=True)
    assert "xb-0.50 a+1.00 d-0.50    sum +0.00" in shown
    assert "user: Where can I buy honey?" in shown
    assert "vowels are good" in shown
    lines = captured(console, texts, by_characters, "", form="json").splitlines()
    record = json.loads(lines[1])
    assert record["prompt"] == [{"role": "user", "content": "Where can I buy honey?"}]
    assert record["tokens"][0] == {"text": "e", "start": 0, "end": 1, "reward": 1.0}
    assert record["sum"] == 0.0
    captured(console, texts, by_characters, TYPICALITY, form="html", out=tmp_path / "map.html")
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert 'class="up"' in page
    assert 'class="down"' in page
    with pytest.raises(ConfigError, match="html"):
        score(texts, by_characters, "", console, form="html", out=tmp_path / "map.png")
    with pytest.raises(DataError, match="no text"):
        score([], by_characters, "", console)


def test_texts_are_read_and_written_alike(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text(json_line(by_characters(QUESTION, "egg")) + '\n\n{"completion": "whole"}\n', encoding="utf-8")
    assert read_texts(file) == [(QUESTION, "egg"), ("", "whole")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ('{"completion": "x"}\nnot json', "texts.jsonl:2: not JSON"),
        ('{"prompt": "x"}', 'texts.jsonl:1: no "completion"'),
        ('{"prompt": 3, "completion": "x"}', 'texts.jsonl:1: "prompt" is int'),
    ],
)
def test_malformed_texts_are_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_texts(file)
    with pytest.raises(DataError, match="cannot read"):
        read_texts(tmp_path / "missing.jsonl")
