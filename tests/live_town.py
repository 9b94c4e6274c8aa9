"""A served model without servers: what the gateway would write into the log, for the tests of the live learner."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rewardloop.evaluate.defects import find_defects
from rewardloop.feedback.log.arrays import Sampled, pack
from rewardloop.feedback.log.event_log import EventLog
from rewardloop.feedback.log.events import NewEvent
from rewardloop.feedback.log.submissions import feedback_event, parse_submission
from rewardloop.loop.live.decisions import POLICY_EVENTS, Decisions
from rewardloop.loop.live.learner import LiveLearner, Place
from rewardloop.loop.manifests import read_manifest
from rewardloop.loop.recipe import Recipe, Sampling
from rewardloop.loop.weights import open_part
from rewardloop.models.language_model import LanguageModel, load_language_model
from rewardloop.rollout.engine import Engine
from rewardloop.rollout.sampling import sample_rollout
from rewardloop.sandbox.annotators import SimulatedAnnotator
from rewardloop.sandbox.builtin import builtin_model_folder
from rewardloop.sandbox.dialogues import training_prompts
from rewardloop.sandbox.world import World, build_world
from rewardloop.types import Completion, Message, Prompt

QUICK = Recipe(reference_samples=64, sampling=Sampling(prompts=4, group_size=2, max_tokens=24))


class LogStage:
    """Does to the log what the gateway does."""

    def __init__(self, log: EventLog, actor_kind: str = "system") -> None:
        self.log = log
        self.actor_kind = actor_kind
        self.told: list[str] = []

    def report(self, kind: str, body: Mapping[str, Any]) -> None:
        self._append(kind, body)

    def progress(self, values: Mapping[str, Any]) -> None:
        self.told.append(str(values["phase"]))

    def activate(self, version: int, reason: str) -> None:
        self._append("policy.activated", {"version": version, "before": self.decided().serving, "reason": reason})

    def roll_back(self, leaving: int, reason: str) -> None:
        decided = self.decided()
        if decided.serving != leaving:
            return
        body = {"version": decided.before, "from": decided.serving, "reason": reason}
        self._append("policy.rolled_back", body)

    def decided(self) -> Decisions:
        decisions = Decisions()
        for event in self.log.read(0, POLICY_EVENTS, 100_000):
            decisions.note(event)
        return decisions

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event.body for event in self.log.read(0, (kind,), 100_000)]

    def _append(self, kind: str, body: Mapping[str, Any]) -> None:
        self.log.append([NewEvent(kind=kind, actor_id="learner", actor_kind=self.actor_kind, body=body)])


class Town:
    """People of the sandbox's town, who ask the model that is served and say what they think of its answers."""

    def __init__(self, folder: Path, annotators: Sequence[str] = ("careful",), seed: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.world: World = build_world(0)
        self.log = EventLog(f"sqlite:///{folder / 'rewardloop.db'}")
        self.registry = folder / "weights"
        self.stage = LogStage(self.log)
        self.people = [
            SimulatedAnnotator(self.world, kind, name=f"{kind}-{at}", seed=seed + at)
            for at, kind in enumerate(annotators)
        ]
        self.rng = np.random.default_rng(seed)
        self.prompts = training_prompts(self.world)
        self._engine: Engine | None = None
        self._speaks = -1
        self._asked = 0

    def learner(self, recipe: Recipe = QUICK) -> LiveLearner:
        place = Place(self.log, self.registry, self.stage, "builtin", settling_s=0.0)
        defects = partial(find_defects, self.world)
        return LiveLearner(load_language_model(builtin_model_folder()), place, self.prompts, recipe, defects)

    def talk(self, judgments: int) -> list[str]:
        """So many judgments of fresh answers of the version that is served; ids of the feedback."""
        given = []
        for turn in range(judgments):
            person = self.people[turn % len(self.people)]
            kind = str(self.rng.choice(["preference", "edit", "rating", "thumb"], p=[0.4, 0.3, 0.2, 0.1]))
            prompt = self.prompts[int(self.rng.integers(len(self.prompts)))]
            said = self.answer(prompt, 2 if kind == "preference" else 1)
            given.append(self.judge(person, kind, said))
        return given

    def answer(self, prompt: Prompt, choices: int = 1) -> list[tuple[str, Completion]]:
        """Answers of the served version, stored as the gateway stores them: (completion id, completion)."""
        engine, serving = self._speaking()
        self._asked += 1
        rollout = sample_rollout(engine, [prompt], group_size=choices, max_tokens=24, temperature=1.0, seed=self._asked)
        said = []
        for number, completion in enumerate(rollout.completions):
            name = f"c{self._asked}-{number}"
            completion = dataclasses.replace(
                completion, weight_versions_T=np.full(len(completion.token_ids), serving, np.int32)
            )
            self.log.append(list(stored(name, completion)))
            said.append((name, completion))
        return said

    def judge(self, person: SimulatedAnnotator, kind: str, said: Sequence[tuple[str, Completion]]) -> str:
        first = said[0][1]
        target = {"completion_id": said[0][0]}
        body: dict[str, Any]
        if kind == "preference":
            choice = person.prefer(first.prompt, first.text, said[1][1].text).choice
            body = {"kind": kind, "targets": [target, {"completion_id": said[1][0]}], "choice": choice}
        elif kind == "edit":
            body = {"kind": kind, "target": target, "corrected": person.edit(first.prompt, first.text).corrected}
        else:
            rating = (
                person.thumb(first.prompt, first.text) if kind == "thumb" else person.rate(first.prompt, first.text)
            )
            scale = {"low": rating.scale.low, "high": rating.scale.high}
            body = {"kind": "rating", "target": target, "value": rating.value, "scale": scale}
        (appended,) = self.log.append([feedback_event(parse_submission(body), person.name, "user")])
        return appended.id

    def _speaking(self) -> tuple[Engine, int]:
        serving = self.stage.decided().serving
        if self._engine is None:
            lm: LanguageModel = load_language_model(builtin_model_folder())
            self._untouched = {name: value.clone() for name, value in lm.model.state_dict().items()}
            self._engine = Engine(lm, slots=8)
        if serving != self._speaks:
            manifest = read_manifest(self.registry / f"v{serving}.json") if serving else None
            self._engine.load_weights(open_part(manifest) if manifest else self._untouched, serving)
            self._speaks = serving
        return self._engine, serving


def stored(name: str, completion: Completion) -> tuple[NewEvent, NewEvent]:
    """The two events of a completion."""
    prompt: Any = completion.prompt
    if not isinstance(prompt, str):
        prompt = [dataclasses.asdict(turn) for turn in prompt if isinstance(turn, Message)]
    sampling = {"temperature": completion.temperature}
    body = {"prompt": prompt, "model": "builtin", "sampling": sampling, "choices": 1}
    ends = np.linspace(1, max(len(completion.text), 1), max(len(completion.token_ids), 1)).astype(np.int32)
    common = {"actor_id": "key", "actor_kind": "key", "target_id": name}
    return (
        NewEvent(kind="completion.started", body=body, **common),
        NewEvent(
            kind="completion.finished",
            body={"choice": 0, "text": completion.text, "finish_reason": completion.finish_reason},
            arrays=pack(Sampled.of(completion, ends.tolist())),
            **common,
        ),
    )
