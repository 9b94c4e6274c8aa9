"""Grounding, truth and detectors: by hand, by slow loops, by defect injection, and through the verbs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from rewardloop.cli.evaluate import Sampling, evaluate
from rewardloop.cli.exam import Asked, prepare_exam
from rewardloop.cli.train_detector import split_judgments, train_detector
from rewardloop.errors import ConfigError, DataError, ModelError
from rewardloop.evaluate.detector import Detector, _threshold, fit_detector, label_texts, load_detector, save_detector
from rewardloop.evaluate.facts import Choices, read_choices, score_choices
from rewardloop.evaluate.grounding import claims, unsupported
from rewardloop.evaluate.texts import split_sentences
from rewardloop.feedback.records import write_feedback
from rewardloop.feedback.splits import judgment_topic, split_by_prompt
from rewardloop.models.language_model import LanguageModel, load_language_model
from rewardloop.sandbox.builtin import builtin_model_folder
from rewardloop.types import THUMB, Flag, Message, Rating, Scale


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_language_model(builtin_model_folder(), device="cpu")


# ---------------------------------------------------------------- sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ('He left. "Where to?" she asked. Home!', ["He left.", '"Where to?"', "she asked.", "Home!"]),
        ("It costs 3.50 coins", ["It costs 3.50 coins"]),
        ("他走了。“去哪儿？”她问：回家！", ["他走了。", "“去哪儿？”", "她问：回家！"]),
        ("first line\nsecond line", ["first line", "second line"]),
        ("... !", []),
        ("", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


# ---------------------------------------------------------------- grounding


def test_claims_by_hand() -> None:
    assert claims("The mill burned. In 1,234 it was sold to Anna Reed for 3.5 coins.") == [
        "1234",
        "3.5",
        "anna",
        "reed",
    ]
    assert claims("他在一九八七年读《红楼梦》，写了3篇，用Python。") == ["3", "一九八七", "红楼梦", "python"]
    assert claims("nothing to see here") == []


def test_unsupported_by_hand() -> None:
    source = "In 1987 Anna sold 1,200 jars to the mill."
    assert unsupported("We know that Anna sold 1200 jars in 1987.", source) == 0
    assert unsupported("We know that Anna sold 1300 jars in 1987.", source) == pytest.approx(1 / 3)
    assert unsupported("It was Bert, of London.", source) == 1
    assert unsupported("it was somebody", source) == 0
    assert unsupported("他读《红楼梦》和《西游记》。", "他爱红楼梦。") == pytest.approx(1 / 2)
    # part of a number is not that number, part of a word not that name
    assert unsupported("So 12 came, and Ann.", source) == 1


# ---------------------------------------------------------------- truth


def test_choices_against_a_plain_forward(model: LanguageModel) -> None:
    """T7.5 beside it: whatever is added to all log-probabilities of a question changes nothing."""
    asked = [
        Choices("Where can I buy honey?", ("At the mill.", "At the Corner Pantry."), ("On the moon.",)),
        Choices("蜂蜜多少钱？", ("四枚。",), ("一千枚。", "不要钱。")),
    ]
    mc1_B, mc2_B = score_choices(model, asked)
    for number, question in enumerate(asked):
        prompt_ids = model.encode_prompt((Message("user", question.question),))
        totals = []
        for text in (*question.right, *question.wrong):
            spaced = text if model.tokenizer.chat_template or text[0] > "\u2e7f" else f" {text}"
            ids = model.encode_completion(spaced)
            with torch.no_grad():
                logits = model.model(torch.tensor([[*prompt_ids, *ids]])).logits[0].double()
            logprobs = torch.log_softmax(logits, dim=-1)
            totals.append(sum(float(logprobs[len(prompt_ids) + t - 1, token]) for t, token in enumerate(ids)))
        weights = np.exp(np.array(totals) - 100 - max(totals) + 100)
        split = len(question.right)
        assert mc2_B[number] == pytest.approx(weights[:split].sum() / weights.sum(), abs=1e-4)
        assert mc1_B[number] == float(max(totals[:split]) > max(totals[split:]))


def test_choices_are_read_in_two_layouts(tmp_path: Path) -> None:
    lines, table = tmp_path / "q.jsonl", tmp_path / "q.csv"
    lines.write_text('{"question": "q", "right": ["a", "b"], "wrong": ["c"], "id": 3}\n', encoding="utf-8")
    table.write_text("Question,Correct Answers,Incorrect Answers\nq,a; b,c\n", encoding="utf-8")
    assert read_choices(lines) == read_choices(table) == [Choices("q", ("a", "b"), ("c",))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"right": ["a"]}', 'q.jsonl:1: no "question"'),
        ('{"question": "q", "right": ["a"], "wrong": []}', 'q.jsonl:1: "wrong" has no answer'),
        ("[1, 2]", 'q.jsonl:1: no "question"'),
        ("nothing", "q.jsonl:1: not JSON"),
        ("", "is empty"),
    ],
)
def test_malformed_choices_are_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_choices(file)


# ---------------------------------------------------------------- detectors

POLITE = ("Thank you", "With pleasure", "Of course", "Gladly", "Good day", "Certainly")
RUDE = ("You donkey", "Shut up", "Dumb pig", "Go away, fool", "You idiot", "Stupid goose")
PLACES = ("mill", "bakery", "harbor", "market", "river", "church", "forge")


def thumbs(count: int = 1200, noise: float = 0.05) -> list[Rating]:
    """Polite texts up, rude ones down, a few judged wrongly."""
    rng = np.random.default_rng(0)
    said = []
    for number in range(count):
        rude = bool(rng.random() < 0.4)
        opening = (RUDE if rude else POLITE)[rng.integers(6)]
        text = f"{opening}, it is number {number} at the {PLACES[rng.integers(7)]}."
        said.append(Rating(prompt="", completion=text, value=int(rude == (rng.random() < noise)), scale=THUMB))
    return said


def test_a_text_is_labeled_by_all_who_judged_it() -> None:
    stars = Scale(low=1, high=5)
    said = [
        Rating(prompt="", completion="a", value=1, scale=stars),
        Rating(prompt="", completion="a", value=5, scale=stars),
        Rating(prompt="", completion="b", value=1, scale=stars),
        Rating(prompt="", completion="b", value=4, scale=stars),
        Flag(prompt="", completion="c", reason="harm"),
    ]
    texts, bad_B = label_texts(said)
    assert texts == ["a", "b", "c"]
    assert bad_B.tolist() == [False, True, True]


def test_a_detector_finds_the_defect_and_raises_few_false_alarms(tmp_path: Path) -> None:
    detector, validity = fit_detector("rudeness", *split_by_prompt(thumbs(noise=0.0), 0.2, 0), seed=0)
    assert validity.auc > 0.99
    assert validity.found.value > 0.95
    assert validity.false_alarms.value <= 0.03
    assert detector.flags(["You donkey, the mill is closed.", "Gladly, the mill is open."]).tolist() == [True, False]
    save_detector(detector, tmp_path / "rude.safetensors")
    again = load_detector(tmp_path / "rude.safetensors")
    assert (again.name, again.threshold) == (detector.name, detector.threshold)
    assert again.scores(["any text", "他是谁"]).tolist() == detector.scores(["any text", "他是谁"]).tolist()


def test_the_threshold_keeps_its_promise_on_average() -> None:
    """Over draws, new faultless texts lie above it in 1 % of cases or less: the split-conformal guarantee."""
    rng = np.random.default_rng(0)
    above = [float((rng.normal(size=2000) > _threshold(rng.normal(size=250))).mean()) for _ in range(400)]
    assert 0.005 < np.mean(above) < 0.0105


def test_a_detector_shares_no_text_with_a_reward_of_the_other_half() -> None:
    said = thumbs()
    reward_train = split_by_prompt(split_by_prompt(said, 0.2, 7)[0], 0.5, 8)[0]  # as train-reward does for half a
    train, held_out = split_judgments(said, "b", 7)
    seen = {judgment_topic(judgment) for judgment in reward_train}
    assert len(train) > 400
    assert not seen & {judgment_topic(judgment) for judgment in [*train, *held_out]}
    assert len(split_judgments(said, None, 7)[0]) + len(held_out) == len(said)


def test_too_little_to_learn_from_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="faultless texts to set the threshold by"):
        fit_detector("harm", thumbs(60), thumbs(60), seed=0)
    with pytest.raises(ModelError, match="train-detector"):
        load_detector(tmp_path / "missing.safetensors")
    save_detector(Detector("harm", np.zeros(8, dtype=np.float32), 0.0), tmp_path / "small.safetensors")
    with pytest.raises(ModelError, match="train it again"):
        load_detector(tmp_path / "small.safetensors")


# ---------------------------------------------------------------- through the front door


def test_the_verbs_with_every_measure(tmp_path: Path) -> None:
    """A detector is trained from a file, then judges answers to own prompts beside grounding and choices."""
    write_feedback(tmp_path / "said.jsonl", thumbs(2000))
    console = Console(width=120)
    detector = tmp_path / "rude.safetensors"
    train_detector([tmp_path / "said.jsonl"], detector, name="rude", layout=None, half="a", seed=0, console=console)
    assert json.loads(detector.with_suffix(".json").read_text("utf-8"))["auc"] > 0.9
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"Where is shop {number}?\n" for number in range(20)), encoding="utf-8")
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "Where?", "right": ["Here."], "wrong": ["There."]}\n', encoding="utf-8")
    report = evaluate(
        builtin_model_folder(),
        builtin_model_folder(),
        tmp_path / "out",
        console,
        asked=Asked(prompts=prompts, most=6, detectors=[detector], grounded=True, choices=questions),
        sampling=Sampling(per_prompt=3, max_tokens=8),
    )
    figures = {figure.name: figure for figure in report.figures}
    assert {"held_out/rude", "text/unsupported", "truth/mc1", "truth/mc2"} < set(figures)
    assert report.settings["prompts"] == "6"
    assert report.settings["answers to each"] == "3"
    assert report.settings["judge"] == "minus rude"
    change = figures["truth/mc2"].change
    assert change is not None
    assert change.value == pytest.approx(0)
    assert figures["held_out/reward"].after.value == pytest.approx(-figures["held_out/rude"].after.value)


def test_own_prompts_and_what_is_about_them_go_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--prompts without --reward"):
        prepare_exam(Asked(prompts=tmp_path / "prompts.txt"), 0)
    with pytest.raises(ConfigError, match="--reward without --prompts"):
        prepare_exam(Asked(reward=tmp_path), 0)
    with pytest.raises(ConfigError, match="--grounded without --prompts"):
        prepare_exam(Asked(grounded=True), 0)
    with pytest.raises(ConfigError, match="--name"):
        train_detector([], tmp_path / "x", name="Not/this", layout=None, half=None, seed=0, console=Console())
