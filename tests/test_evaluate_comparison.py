"""Comparing two models: every figure against a plain computation, and the whole verb on the sandbox."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from rewardloop.cli.evaluate import Sampling, evaluate, log_ratios
from rewardloop.cli.exam import Asked
from rewardloop.errors import ConfigError, TrainingError
from rewardloop.evaluate.comparison import Judged, compare, judge_answers, pick_examples
from rewardloop.evaluate.defects import find_defects
from rewardloop.models.language_model import LanguageModel, freeze_copy, load_language_model, save_language_model
from rewardloop.reward.sources import Rule
from rewardloop.rollout.engine import Engine
from rewardloop.rollout.sampling import sample_rollout
from rewardloop.sandbox.builtin import builtin_model_folder
from rewardloop.sandbox.dialogues import DEFECTS, answer, held_out_prompts, held_out_questions
from rewardloop.sandbox.judges import GoldReward
from rewardloop.sandbox.world import build_world
from rewardloop.types import Completion, Prompt

WORLD = build_world(0)


def completion(prompt: Prompt, text: str, finish: str = "stop") -> Completion:
    none = np.zeros(0, dtype=np.float32)
    return Completion(prompt, (1,), (2,), none, none.astype(np.int32), text, finish)  # type: ignore[arg-type]


def judged(texts: Sequence[str], scores: Sequence[float], **defects: Sequence[bool]) -> Judged:
    """Two answers to each prompt "0", "1", ..."""
    completions = tuple(completion(str(i // 2), text) for i, text in enumerate(texts))
    return Judged(completions, np.array(scores, dtype=float), {n: np.array(d) for n, d in defects.items()})


def test_figures_by_hand() -> None:
    before = judged(["a b"] * 4, [0.0, 0.0, 1.0, 1.0], rudeness=[True, True, True, False])
    after = judged(["a b c d"] * 4, [1.0, 0.0, 1.0, 3.0], rudeness=[False, False, True, False])
    figures = {figure.name: figure for figure in compare(after, before, kl_B=np.array([1.0, 2.0, 3.0, 4.0]))}
    reward = figures["held_out/reward"]
    assert reward.change is not None
    assert reward.before is not None
    assert (reward.before.value, reward.after.value, reward.change.value) == (0.5, 1.25, 0.75)
    # by prompt: (win, tie) -> .75 and (tie, win) -> .75
    assert figures["held_out/win_rate"].after.value == 0.75
    rude = figures["held_out/rudeness"]
    assert rude.change is not None
    assert (rude.after.value, rude.change.value, rude.better) == (0.25, -0.5, "lower")
    assert figures["policy/kl"].after.value == 2.5
    assert figures["text/length"].after.value == 7
    assert figures["text/distinct"].after.value == pytest.approx(3 / 12)


def test_a_change_is_measured_answer_by_answer() -> None:
    """Prompts differ widely, the change does not: its interval must be narrow where those of the sides are wide."""
    rng = np.random.default_rng(0)
    hardness = np.repeat(rng.normal(0, 5, 100), 2)
    before = judged(["x"] * 200, (hardness + rng.normal(0, 0.1, 200)).tolist())
    after = judged(["x"] * 200, (hardness + 0.2 + rng.normal(0, 0.1, 200)).tolist())
    figure = compare(after, before)[0]
    assert figure.change is not None
    assert figure.change.low > 0.1
    assert figure.change.high - figure.change.low < 0.1 < 1 < figure.after.high - figure.after.low


def test_examples_are_spread_and_not_chosen() -> None:
    side = judged([str(i) for i in range(40)], range(40))
    assert [example.prompt for example in pick_examples(side, None, 4)] == ["0", "5", "10", "15"]
    assert [example.after.text for example in pick_examples(side, side, 4)] == ["0", "10", "20", "30"]
    assert len(pick_examples(side, None, 100)) == 20


def test_a_judge_that_gives_no_number_is_refused() -> None:
    class Broken:
        version = "broken"

        def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> np.ndarray:
            return np.full(len(prompts), np.nan)

    with pytest.raises(TrainingError, match="broken"):
        judge_answers([completion("p", "t")], Broken())


@pytest.mark.parametrize("injected", DEFECTS)
def test_injected_defects_are_found_and_no_others(injected: str) -> None:
    """T7.1: the AUC of each judge is 1 for its own defect and one half for the others."""
    rng = np.random.default_rng(1)
    rates = dict.fromkeys(DEFECTS, 0.0) | {injected: 0.5}
    written = [(q, answer(WORLD, q, rng, rates)) for q in held_out_questions(WORLD)[:120]]
    found = find_defects(WORLD, [completion(q.prompt, reply.text) for q, reply in written])
    present_B = np.array([bool(reply.defects) for _, reply in written])
    assert 30 < present_B.sum() < 90
    for name, seen_B in found.items():
        area = (seen_B[present_B].mean() + 1 - seen_B[~present_B].mean()) / 2
        assert area >= 0.9 if name == injected else 0.4 <= area <= 0.6


# ---------------------------------------------------------------- with the built-in model


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_language_model(builtin_model_folder(), device="cpu")


def test_log_ratios_equal_a_plain_forward(model: LanguageModel) -> None:
    other = freeze_copy(model)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    prompts = held_out_prompts(WORLD)[:3]
    completions = sample_rollout(Engine(model), prompts, group_size=1, max_tokens=12, seed=0).completions
    ours = log_ratios(model, other, completions, temperature=0.7)
    assert ours is not None
    for number, one in enumerate(completions):
        ids = torch.tensor([[*one.prompt_ids, *one.token_ids]])
        total = 0.0
        for lm, sign in ((model, 1), (other, -1)):
            with torch.no_grad():
                logprobs = torch.log_softmax(lm.model(ids).logits[0].double() / 0.7, dim=-1)
            start = len(one.prompt_ids)
            total += sign * sum(float(logprobs[start + t - 1, token]) for t, token in enumerate(one.token_ids))
        assert ours[number] == pytest.approx(total, abs=1e-3)
    same = log_ratios(model, freeze_copy(model), completions, temperature=1.0)
    assert same is not None
    assert np.abs(same).max() < 1e-6


def test_the_verb_on_the_sandbox(model: LanguageModel, tmp_path: Path) -> None:
    """A model with noise in its weights must drift more than the one it was made from."""
    worse = freeze_copy(model)
    with torch.no_grad():
        for parameter in worse.model.parameters():
            parameter.add_(
                0.4 * parameter.std() * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            )
    save_language_model(worse, tmp_path / "worse")
    console = Console(width=100)
    with console.capture() as shown:
        report = evaluate(
            tmp_path / "worse",
            builtin_model_folder(),
            tmp_path / "out",
            console,
            asked=Asked(most=40),
            sampling=Sampling(per_prompt=2, max_tokens=48),
            language="zh",
        )
    figures = {figure.name: figure for figure in report.figures}
    assert {f"held_out/{name}" for name in DEFECTS} < set(figures)
    assert figures["policy/kl"].after.low > 0
    drift = figures["held_out/topic_drift"].change
    assert drift is not None
    assert drift.low > 0
    assert "跑题的回答变多了" in shown.get()
    stored = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert len(stored["examples"]) == 8
    assert stored["token_rewards"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert '<html lang="zh-CN">' in page
    assert "裁判给出的奖励" in shown.get()


def test_own_prompts_need_a_judge(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--prompts without --reward"):
        evaluate("nowhere", None, tmp_path, Console(), asked=Asked(prompts=tmp_path / "prompts.txt"))


def test_one_model_alone(model: LanguageModel) -> None:
    prompts = held_out_prompts(WORLD)[:10]
    completions = sample_rollout(Engine(model), prompts, group_size=2, max_tokens=32, seed=0).completions
    alone = judge_answers(completions, GoldReward(WORLD), lambda found: find_defects(WORLD, found))
    figures = compare(alone)
    assert all(figure.change is None and figure.before is None for figure in figures)
    by_rule = judge_answers(completions, Rule("length", lambda prompt, text: float(len(text))))
    assert by_rule.scores_B.tolist() == [len(c.text) for c in completions]
    assert not by_rule.defects
