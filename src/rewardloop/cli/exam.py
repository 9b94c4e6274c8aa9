"""What `rewardloop evaluate` asks, who judges the answers, and what else is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from rewardloop.errors import ConfigError
from rewardloop.evaluate.comparison import FindDefects, Measure
from rewardloop.evaluate.defects import find_defects
from rewardloop.evaluate.detector import Detector, load_detector
from rewardloop.evaluate.grounding import prompt_text, unsupported
from rewardloop.feedback.prompts import read_prompts
from rewardloop.reward.sources import Rule
from rewardloop.reward.storage import load_reward
from rewardloop.sandbox.dialogues import held_out_prompts
from rewardloop.sandbox.judges import GoldReward
from rewardloop.sandbox.world import build_world
from rewardloop.types import Completion, Prompt, RewardSource


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user wants to be asked and measured.

    Without `prompts`: the held-out questions of the sandbox, judged by gold. With them, `reward` judges, or where
    there is none, the detectors: the fewer find something, the better.
    """

    prompts: Path | None = None
    reward: Path | None = None
    most: int = 200  # prompts, 1 or more
    detectors: Sequence[Path] = ()  # one file for each further defect
    grounded: bool = False  # the prompts hold the source of what answers may say
    choices: Path | None = None  # questions with right and wrong answers
    world_seed: int = 0


@dataclass(frozen=True)
class Exam:
    """What is asked, who judges the answers, and how defects and measures of a text are found."""

    prompts: tuple[Prompt, ...]
    judge: RewardSource
    find_defects: FindDefects
    measures: Mapping[str, Measure]


def prepare_exam(asked: Asked, seed: int) -> Exam:
    """Raises ConfigError, DataError, ModelError."""
    detectors = [load_detector(path) for path in asked.detectors]
    measures = _measures(asked)
    if asked.prompts is not None:
        judge = _own_judge(asked, detectors)
        prompts = _some(read_prompts(asked.prompts), asked.most, seed)
        return Exam(prompts, judge, partial(_flag, detectors), measures)
    if asked.reward is not None or asked.grounded:
        given = "grounded" if asked.reward is None else "reward"
        raise ConfigError(f"--{given} without --prompts: it is about your own prompts; give both, or neither")
    world = build_world(asked.world_seed)

    def find(completions: Sequence[Completion]) -> dict[str, np.ndarray]:
        return find_defects(world, completions) | _flag(detectors, completions)

    return Exam(_some(held_out_prompts(world), asked.most, seed), GoldReward(world), find, measures)


def _own_judge(asked: Asked, detectors: Sequence[Detector]) -> RewardSource:
    if asked.reward is not None:
        return load_reward(asked.reward)
    if detectors:
        names = "+".join(detector.name for detector in detectors)
        return Rule(f"minus {names}", lambda _, text: -float(sum(d.flags([text])[0] for d in detectors)))
    raise ConfigError(
        "--prompts without --reward: your own prompts need a reward model that judges the answers, or a --detector "
        "of a defect; give one of them, or no prompts for the sandbox"
    )


def _flag(detectors: Sequence[Detector], completions: Sequence[Completion]) -> dict[str, np.ndarray]:
    texts = [completion.text for completion in completions]
    return {detector.name: detector.flags(texts) for detector in detectors}


def _measures(asked: Asked) -> dict[str, Measure]:
    measures: dict[str, Measure] = {}
    if asked.grounded:
        measures["text/unsupported"] = lambda completions: np.array(
            [unsupported(c.text, prompt_text(c.prompt)) for c in completions]
        )
    return measures


def _some(prompts: Sequence[Prompt], most: int, seed: int) -> tuple[Prompt, ...]:
    """At most `most` of the prompts, drawn by `seed`, in their order."""
    if len(prompts) <= most:
        return tuple(prompts)
    chosen = np.random.default_rng(seed).choice(len(prompts), size=most, replace=False)
    return tuple(prompts[int(place)] for place in sorted(chosen))
