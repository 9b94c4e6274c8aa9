"""Learning from what people say of a served model, round by round.

A round: obey what was decided, hear what people said, refit the reward and the potential, improve the policy, publish
it, compare it with what is served, let it in or hold it back, go back where harm is done.

What a round does to the learner follows from the log and the registry alone: whoever is killed anywhere goes on from
the newest whole version and comes to the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from rewardloop.config import recipe_digest
from rewardloop.errors import DataError, TrainingError
from rewardloop.evaluate.comparison import FindDefects
from rewardloop.evaluate.convergence import reason_to_stop
from rewardloop.evaluate.winrate import win_outcomes, win_rate_interval
from rewardloop.feedback.log.event_log import LogReader
from rewardloop.feedback.log.events import Event
from rewardloop.feedback.log.settled import SETTLING_S, SettledFeedback
from rewardloop.hardware import return_free_memory
from rewardloop.loop.journal import above
from rewardloop.loop.learner import Learner
from rewardloop.loop.live.comparison import Compared, Judges, compare_versions, seen, speaking_as
from rewardloop.loop.live.decisions import POLICY_EVENTS, Decisions
from rewardloop.loop.live.gate import HARMFUL, harms, is_worse, judge_candidate, people_turn_away
from rewardloop.loop.live.memory import Memory, joinable
from rewardloop.loop.live.prompts import PromptPool
from rewardloop.loop.live.refit import CarefulReward
from rewardloop.loop.live.stage import RefusedError, Stage
from rewardloop.loop.manifests import (
    POLICY,
    POTENTIAL,
    Manifest,
    collect_versions,
    is_intact,
    list_versions,
    read_manifest,
)
from rewardloop.loop.recipe import Recipe
from rewardloop.loop.rewards import LearnedReward
from rewardloop.loop.seeds import derive_rng
from rewardloop.loop.weights import open_part, publish_version
from rewardloop.models.language_model import LanguageModel, freeze_copy
from rewardloop.reward.features import FeatureExtractor
from rewardloop.types import Prompt, Rollout

ITERATIONS: Final = 4  # of the policy, in a round
MOST_HEARD: Final = 200  # judgments of one round; a backlog is worked off oldest first
FEWEST_WATCHED: Final = 8  # judgments before there is a judge beside the reward
KEPT: Final = 5  # versions that can be gone back to, beside those in use
OLDEST: Final = 2  # versions back, of a served answer that still joins a batch
LR_AFTER_HARM, BETA_AFTER_HARM = 0.5, 1.5
MOST_ROLL_BACKS, ROLL_BACK_WINDOW = 3, 10  # so many in so many versions ask for a person
STATE, REWARD, JUDGE = "state", "reward", "judge"  # the learner's own parts of a version
PAGE: Final = 1000


@dataclass(frozen=True)
class Place:
    """Where the learner works."""

    log: LogReader
    registry: Path  # folder of the weights
    stage: Stage
    model: str  # where the untouched model came from
    settling_s: float = SETTLING_S


class LiveLearner:
    """Policy, reward, judge and memory, kept in step with the log and the registry."""

    def __init__(
        self,
        policy: LanguageModel,
        place: Place,
        prompts: Sequence[Prompt],
        recipe: Recipe,
        find_defects: FindDefects | None = None,
    ) -> None:
        """`prompts`: what there is to practice on before people ask. Raises StoreError, ConfigError."""
        self.place = place
        self.recipe = recipe
        self.find_defects = find_defects
        self.reference = freeze_copy(policy)
        self.extractor = FeatureExtractor(self.reference)
        self.learner = Learner(policy, self.reference, recipe)
        self.memory = Memory(place.log, place.settling_s)
        self.prompts = PromptPool(policy, prompts, place.log)
        self.reward = CarefulReward(LearnedReward(self.extractor, recipe.seed))
        self.judge = LearnedReward(self.extractor, recipe.seed + 1)
        self.decisions = Decisions()
        self.newest = 0  # number of the newest version in the registry
        self.parent = 0  # the version that the learner stands on
        self.iteration = 0
        self.lr_scale = 1.0
        self.quiet = 0  # rounds since somebody said something new
        self.resting: str | None = None  # why nothing more can be gained from what was said
        self.points: list[dict[str, float]] = []  # measurements since somebody said something new
        self._untouched = {name: value.clone() for name, value in policy.model.state_dict().items()}
        self._standard: tuple[tuple[Prompt, ...], Rollout] | None = None
        self._resume()

    def run(self, going_on: Callable[[], bool], wait_s: float = 1.0) -> None:
        """Rounds as long as `going_on` says so. Raises StoreError where nothing can be written for long."""
        while going_on():
            if not self.round():
                self._say("waiting", because=self.decisions.paused or self.resting or "feedback")
                heard_until = max(self.memory.last_seq, self.decisions.seq)
                if self.place.log.wait(heard_until, wait_s) > heard_until:
                    time.sleep(min(wait_s, self.place.settling_s))  # what is new has to settle first

    def round(self) -> bool:
        """One round; False where there was nothing to do."""
        self._obey()
        if self.decisions.paused is not None:
            return False
        known = self.memory.ids
        heard = self.memory.listen(time.time(), MOST_HEARD)
        self.prompts.follow(self.memory.last_seq)
        if self.memory.ids != known:
            self._refit(heard)
        if self.reward.learned.source is None or (self.resting is not None and not heard):
            return False
        metrics = self._practice(heard)
        self._settle(self._publish(metrics))
        return_free_memory()
        return True

    # ---------------------------------------------------------------- what was decided

    def _obey(self) -> None:
        """Follow what people and gates decided since: the log says it, whoever caused it."""
        while events := self.place.log.read(self.decisions.seq, POLICY_EVENTS, PAGE):
            for event in events:
                self.decisions.note(event)
                self._follow(event)

    def _follow(self, event: Event) -> None:
        match event.kind:
            case "policy.activated" if self.decisions.serving != self.parent:
                self._go_back(harmed=False)
            case "policy.rolled_back":
                self._go_back(harmed=True)
            case "policy.gated" if HARMFUL & set(event.body.get("reasons", ())):
                self._go_back(harmed=True)

    def _go_back(self, *, harmed: bool) -> None:
        """Learn on from the version that is served; what people said since is not forgotten."""
        version, lr_scale, beta = self.decisions.serving, self.lr_scale, self.learner.beta
        path = self.place.registry / f"v{version}.json"
        if path.exists() and STATE in (manifest := read_manifest(path)).parts:
            self._restore(manifest)
        else:
            policy = self.learner.policy
            policy.model.load_state_dict(self._untouched)
            self.learner = Learner(policy, self.reference, self.recipe)
            self.parent = version
        if harmed:
            self.lr_scale = lr_scale * LR_AFTER_HARM
            self.learner.beta = max(self.learner.beta, beta) * BETA_AFTER_HARM
        if len(self.memory):
            self._refit(())

    # ---------------------------------------------------------------- reward, judge, potential

    def _refit(self, heard: Sequence[SettledFeedback]) -> None:
        """Learn the reward, the judge and the potential from everything that counts now."""
        self._say("refit")
        self.points, self.resting, self.quiet = [], None, 0
        old, new = self.memory.trained_on(heard, derive_rng(self.recipe.seed, "replay", self.newest))
        if not (old or new):
            return
        pool = self._standard_answers()
        outcome = self.reward.refit(old, new, pool)
        self._refit_judge(pool)
        source = self.reward.learned.source
        if outcome.accepted and source is not None:
            self.learner.restart_potential(self.learner.score(pool, source), [*old, *new])
        elif outcome.metrics:  # else there was nothing yet to learn from
            self._alarm("reward_refused", f"A new reward was not taken: {outcome.reason}.", outcome.metrics)

    def _refit_judge(self, pool: Rollout) -> None:
        """The second reward, of judgments that the first one never sees."""
        watched = self.memory.watched(derive_rng(self.recipe.seed, "watched", self.newest))
        if len(watched) < FEWEST_WATCHED:
            return
        fitted = replace(self.judge, metrics={})
        try:
            fitted.refit(watched, pool)
        except (DataError, TrainingError):  # nothing in it says which of two texts is better
            return
        self.judge = fitted

    def _standard_answers(self) -> Rollout:
        """Completions of the untouched model, which set the scale of a reward."""
        wanted = -(-self.recipe.reference_samples // self.recipe.sampling.group_size)
        prompts = self.prompts.standard
        order = derive_rng(self.recipe.seed, "pool").permutation(len(prompts))
        chosen = tuple(prompts[int(order[i % len(order)])] for i in range(wanted))
        if self._standard is None or self._standard[0] != chosen:
            with speaking_as(self.learner, self._untouched):
                self._standard = chosen, self.learner.sample(chosen, "pool", 0)
        return self._standard[1]

    # ---------------------------------------------------------------- policy

    def _practice(self, heard: Sequence[SettledFeedback]) -> dict[str, float]:
        """Some policy iterations; served answers that people have just judged are among the samples."""
        source, sampling = self.reward.learned.source, self.recipe.sampling
        assert source is not None
        self.quiet = 0 if heard else self.quiet + 1
        served = joinable(heard, sampling.temperature, self.newest - OLDEST)
        metrics: dict[str, float] = {}
        for number in range(ITERATIONS):
            self._say("practice", iteration=number + 1, of=ITERATIONS)
            joined = served[number::ITERATIONS][: sampling.prompts]
            rng = derive_rng(self.recipe.seed, "prompts", self.iteration)
            drawn = self.prompts.draw(sampling.prompts - len(joined), rng)
            step = self.learner.iterate(
                [*(completion.prompt for completion in joined), *drawn],
                source,
                self.iteration,
                lr_share=self.lr_scale * 0.5**self.quiet,
                served=dict(enumerate(joined)),
            )
            self.iteration += 1
            metrics = step.metrics
        counted = {"joined": len(served), "unusable": self.memory.unusable, "too_long": self.prompts.too_long}
        return metrics | {f"live/{name}": float(count) for name, count in counted.items()}

    # ---------------------------------------------------------------- versions

    def _publish(self, metrics: Mapping[str, float]) -> Manifest:
        """The state of learning as a new version, whole or not at all."""
        self._say("publish")
        source = self.reward.learned.source
        state = self.learner.tensors()
        own = {name: value for name, value in state.items() if not name.startswith(("policy.", "potential."))}
        parts = {
            POLICY: self.learner.policy.model.state_dict(),
            POTENTIAL: self.learner.potential.tensors(),
            STATE: own,
            REWARD: self.reward.learned.tensors(),
            JUDGE: self.judge.tensors(),
        }
        manifest = publish_version(
            self.place.registry,
            self.newest + 1,
            {name: tensors for name, tensors in parts.items() if tensors},
            model=self.place.model,
            metrics={**metrics, **self.reward.learned.metrics},
            facts={
                "parent": self.parent,
                "last_seq": self.memory.last_seq,
                "decided_seq": self.decisions.seq,
                "feedback": len(self.memory),
                "reward_version": source.version if source else None,
                "iteration": self.iteration,
                "lr_scale": self.lr_scale,
                "quiet": self.quiet,
                "points": self.points,
                "threads": torch.get_num_threads(),
                "recipe": recipe_digest(self.recipe),
            },
        )
        self.newest = self.parent = manifest.version
        return manifest

    def _settle(self, manifest: Manifest) -> None:
        """Report a version, compare it, let it in or hold it: whatever of that has not been done yet."""
        if manifest.version not in self.decisions.published:
            self.place.stage.report("policy.published", _published(manifest))
        if manifest.version not in self.decisions.gated:
            self._gate(manifest)
        self._obey()
        if self.decisions.passed == manifest.version:
            self._let_in(manifest)
        newest = [each.version for each in list_versions(self.place.registry)][:KEPT]
        collect_versions(self.place.registry, {0, self.parent, *self.decisions.active[-KEPT:], *newest})
        self.extractor.memory.rows.clear()  # features depend in their last bits on what was computed together

    def _gate(self, manifest: Manifest) -> None:
        """Compare a version with what is served; let it in, or look whether what is served should stay."""
        self._say("compare")
        proxy = self.reward.learned.source
        assert proxy is not None
        versions = (self.decisions.serving, self.decisions.before, 0)
        found = compare_versions(
            self.learner,
            Judges(proxy, self.judge.source or proxy, self.find_defects),
            self.prompts.canaries,
            [open_part(manifest), *(self._weights(version) for version in versions)],
            manifest.version,
            self.decisions.wealth,
        )
        verdict = judge_candidate(
            found.candidate,
            found.active,
            found.first,
            kl=found.kl,
            target_kl=self.recipe.optimizer.target_kl,
            wealth=self.decisions.wealth,
        )
        body: dict[str, Any] = {"version": manifest.version, "passed": verdict.passed}
        body |= {"reasons": list(verdict.reasons), "wealth": list(verdict.wealth)}
        self.place.stage.report("policy.gated", {**body, "metrics": verdict.metrics | self._measure(found)})
        if not verdict.passed:
            self._look_after(found)
        self._rest(len(found.candidate.judged_B))

    def _let_in(self, manifest: Manifest) -> None:
        """Have a version served that has passed its gate."""
        try:
            self.place.stage.activate(manifest.version, "gate")
        except RefusedError as error:
            self._alarm("activation_refused", str(error), {})
        self._obey()

    def _look_after(self, found: Compared) -> None:
        """Go back where what is served does harm; the third time in ten versions, ask for a person."""
        serving = self.decisions.serving
        if serving == self.decisions.before:
            return
        harm = harms(found.active, found.before, found.first)
        if is_worse(found.active, found.before):
            harm.append("worse")
        if people_turn_away(self.memory.opinions(serving), self.memory.opinions(self.decisions.before)):
            harm.append("people")
        if not harm:
            return
        self._alarm("harm", f"Version {serving} does harm: {', '.join(harm)}.", seen(found.active))
        self.place.stage.roll_back(serving, ", ".join(harm))
        self._obey()
        recent = [version for version in self.decisions.rolled_back if version > self.newest - ROLL_BACK_WINDOW]
        if len(recent) >= MOST_ROLL_BACKS:
            self.place.stage.report("policy.paused", {"reason": "roll_backs", "newest": self.newest})

    def _measure(self, found: Compared) -> dict[str, float]:
        """One more point for the test of convergence, which is also what a dashboard shows of the version."""
        win_rate, low, high = win_rate_interval(win_outcomes(found.candidate.judged_B, found.first.judged_B))
        shared = {"loop/iteration": float(self.iteration), "loop/events": float(len(self.memory))}
        if not self.points:
            self.points.append({**shared, **seen(found.first), "policy/kl": 0.0, "held_out/win_rate": 0.5})
        point = {**shared, **seen(found.candidate), "policy/kl": found.kl, "held_out/win_rate": win_rate}
        self.points.append(point)
        return {**point, "held_out/win_rate_low": low, "held_out/win_rate_high": high}

    def _rest(self, answers: int) -> None:
        """Stop until somebody says something new, where the test of convergence says so."""
        if len(self.points) < 2:  # gone back meanwhile
            return
        reason = reason_to_stop(self.points, target_kl=self.recipe.optimizer.target_kl, answers=answers)
        if reason is None:
            return
        self.resting = reason["name"].removeprefix("stop/")
        if self.resting != "converged":
            self._alarm(self.resting, f"Learning rests: {self.resting}.", self.points[-1])

    def _weights(self, version: int) -> Mapping[str, Tensor]:
        if version == 0:
            return self._untouched
        return open_part(read_manifest(self.place.registry / f"v{version}.json"))

    # ---------------------------------------------------------------- going on after a stop

    def _resume(self) -> None:
        """Go on from the newest whole version; the first time, publish the untouched model as version 0."""
        versions = list_versions(self.place.registry)
        if not any(each.version == 0 for each in versions):
            publish_version(self.place.registry, 0, {POLICY: self._untouched}, model=self.place.model)
        self.newest = max((each.version for each in versions), default=0)
        manifest = next((each for each in versions if STATE in each.parts and is_intact(each)), None)
        if manifest is None:
            self.place.stage.report("policy.published", _published(read_manifest(self.place.registry / "v0.json")))
            return
        self._restore(manifest)
        self.memory.recall(int(manifest.facts["last_seq"]))
        self.prompts.follow(self.memory.last_seq)
        until = int(manifest.facts["decided_seq"])
        for event in self._decided_until(until):
            self.decisions.note(event)
        self._obey()
        if self.parent == self.newest:
            self._settle(manifest)

    def _decided_until(self, until: int) -> list[Event]:
        """Decisions that the version at hand has obeyed already."""
        found: list[Event] = []
        while events := self.place.log.read(found[-1].seq if found else 0, POLICY_EVENTS, PAGE):
            found += events
        return [event for event in found if event.seq <= until]

    def _restore(self, manifest: Manifest) -> None:
        """The state of learning as it was when this version was published. Raises StoreError."""
        facts = manifest.facts
        self.learner.restore(
            above("policy.", open_part(manifest))
            | above("potential.", open_part(manifest, POTENTIAL))
            | open_part(manifest, STATE)
        )
        for learned, part in ((self.reward.learned, REWARD), (self.judge, JUDGE)):
            learned.restore(open_part(manifest, part) if part in manifest.parts else {}, int(facts["feedback"]))
        self.parent = manifest.version
        self.iteration = max(self.iteration, int(facts["iteration"]))
        self.lr_scale, self.quiet = float(facts["lr_scale"]), int(facts["quiet"])
        self.points, self.resting = list(facts["points"]), None

    # ---------------------------------------------------------------- words

    def _say(self, phase: str, **values: Any) -> None:
        known = {
            "phase": phase,
            "version": self.newest,
            "last_seq": self.memory.last_seq,
            "judgments": len(self.memory),
        }
        self.place.stage.progress(known | values)

    def _alarm(self, name: str, text: str, metrics: Mapping[str, float]) -> None:
        # `newest` makes the same words about another version another alarm.
        body = {"name": name, "text": text, "version": self.decisions.serving, "newest": self.newest}
        self.place.stage.report("policy.alarm", body | {"metrics": dict(metrics)})


def _published(manifest: Manifest) -> dict[str, Any]:
    """What the log says of a new version."""
    known = {name: manifest.facts.get(name) for name in ("parent", "last_seq", "feedback", "reward_version")}
    return {"version": manifest.version, "digest": manifest.digest, **known, "metrics": manifest.metrics}
