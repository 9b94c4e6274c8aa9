"""The live learner among the people of the town: what it hears, when it lets a version in, how it survives a kill."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from live_town import QUICK, LogStage, Town, stored
from rewardloop.errors import StoreError
from rewardloop.feedback.log.events import NewEvent, stored_event
from rewardloop.feedback.splits import judgment_topic
from rewardloop.hardware import Precision
from rewardloop.loop.live import comparison
from rewardloop.loop.live import learner as learner_module
from rewardloop.loop.live.comparison import Compared
from rewardloop.loop.live.decisions import Decisions
from rewardloop.loop.live.gate import NOTHING_WON, Look, harms, is_worse, judge_candidate, people_turn_away
from rewardloop.loop.live.learner import LiveLearner
from rewardloop.loop.live.memory import Memory, is_canary, is_watched, joinable, replayed
from rewardloop.loop.live.prompts import PromptPool
from rewardloop.loop.live.refit import CarefulReward, implied_pairs, surprise
from rewardloop.loop.manifests import list_versions, read_manifest
from rewardloop.loop.rewards import LearnedReward
from rewardloop.loop.weights import open_part, publish_version
from rewardloop.reward.fitting import LinearHeads
from rewardloop.reward.model import RewardModel
from rewardloop.types import THUMB, Edit, Feedback, Preference, Ranking, Rating, Scale


@pytest.fixture(autouse=True)
def small_rounds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, few canaries, few iterations: a round in a second or two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    make_small(monkeypatch)
    yield
    torch.set_num_threads(before)


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "AT_ONCE", 32)
    monkeypatch.setattr(comparison, "LOOKS", 1)
    monkeypatch.setattr(learner_module, "ITERATIONS", 2)


# ---------------------------------------------------------------- memory


def test_everything_settled_is_heard_once_and_what_was_taken_back_is_forgotten(tmp_path: Path) -> None:
    town = Town(tmp_path)
    given = town.talk(6)
    memory = Memory(town.log, settling_s=0.0)
    assert [item.id for item in memory.listen(0.0, limit=4)] == given[:4]
    assert [item.id for item in memory.listen(0.0)] == given[4:]
    assert memory.listen(0.0) == []
    town.log.append([NewEvent(kind="feedback.retracted", actor_id="careful-0", actor_kind="user", target_id=given[2])])
    assert memory.listen(0.0) == []
    assert memory.ids == set(given) - {given[2]}


def test_a_recalled_memory_is_the_one_that_stopped_there(tmp_path: Path) -> None:
    town = Town(tmp_path)
    town.talk(5)
    memory = Memory(town.log, settling_s=0.0)
    memory.listen(0.0)
    until = memory.last_seq
    town.talk(3)
    again = Memory(town.log, settling_s=0.0)
    again.recall(until)
    assert (again.ids, again.last_seq) == (memory.ids, until)
    assert len(again.listen(0.0)) == 3


def test_excluded_people_do_not_count_until_they_are_included_again(tmp_path: Path) -> None:
    town = Town(tmp_path, ["careful", "noisy"])
    town.talk(6)
    memory = Memory(town.log, settling_s=0.0)
    memory.listen(0.0)
    change = {"actor_id": "owner", "actor_kind": "user", "target_id": "noisy-1"}
    town.log.append([NewEvent(kind="annotator.excluded", body={"reason": "careless"}, **change)])  # type: ignore[arg-type]
    memory.listen(0.0)
    assert len(memory.ids) == 3
    town.log.append([NewEvent(kind="annotator.included", **change)])  # type: ignore[arg-type]
    memory.listen(0.0)
    assert len(memory.ids) == 6


def test_the_judge_and_the_reward_share_no_topic(tmp_path: Path) -> None:
    town = Town(tmp_path)
    town.talk(30)
    memory = Memory(town.log, settling_s=0.0)
    heard = memory.listen(0.0)
    old, new = memory.trained_on(heard, np.random.default_rng(0))
    assert old == []
    watched = memory.watched(np.random.default_rng(0))
    assert watched
    assert new
    assert len(watched) + len(new) == 30
    assert not {judgment_topic(each) for each in watched} & {judgment_topic(each) for each in new}
    assert all(is_watched(each) for each in watched)


def test_a_replay_gives_rare_kinds_their_share(tmp_path: Path) -> None:
    town = Town(tmp_path)
    town.talk(40)
    memory = Memory(town.log, settling_s=0.0)
    heard = memory.listen(0.0)
    kinds = [type(item.feedback).__name__ for item in heard]
    rarest = min(set(kinds), key=kinds.count)
    chosen = replayed(heard, 12, np.random.default_rng(0))
    assert len(chosen) == len({item.id for item in chosen}) == 12
    assert sum(type(item.feedback).__name__ == rarest for item in chosen) >= min(kinds.count(rarest), 4)


def test_no_fit_reads_more_than_its_share_of_many_judgments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardloop.loop.live.memory.MOST_FITTED", 6)
    town = Town(tmp_path)
    town.talk(60)
    memory = Memory(town.log, settling_s=0.0)
    heard = memory.listen(0.0)
    order = {id(item.feedback): place for place, item in enumerate(heard)}
    watched = memory.watched(np.random.default_rng(0))
    old, new = memory.trained_on(heard[-20:], np.random.default_rng(0))
    assert (len(watched), len(old), len(new)) == (6, 3, 3)
    assert [order[id(each)] for each in watched] == sorted(order[id(each)] for each in watched)


def test_only_plain_fresh_answers_join_a_batch_each_once(tmp_path: Path) -> None:
    town = Town(tmp_path)
    said = town.answer(town.prompts[0])
    for _ in range(2):  # two people about one answer
        town.judge(town.people[0], "thumb", said)
    memory = Memory(town.log, settling_s=0.0)
    heard = memory.listen(0.0)
    (joined,) = joinable(heard, temperature=1.0, oldest=0)
    assert joined.token_ids == said[0][1].token_ids
    np.testing.assert_array_equal(joined.logprobs_T, said[0][1].logprobs_T)
    assert joinable(heard, temperature=0.7, oldest=0) == []  # its log-probs are of another distribution
    assert joinable(heard, temperature=1.0, oldest=1) == []  # too old
    bent = [replace(item, completions=tuple(replace(each, plain=False) for each in item.completions)) for item in heard]
    assert joinable(bent, temperature=1.0, oldest=0) == []


# ---------------------------------------------------------------- prompts


def test_what_people_ask_is_practiced_on_but_never_a_canary(tmp_path: Path) -> None:
    town = Town(tmp_path)
    learner = town.learner()
    pool = PromptPool(learner.reference, [], town.log)
    asked = town.prompts[:12]
    for prompt in asked:
        town.answer(prompt)
    pool.follow(town.log.last_seq())
    assert set(pool.training) | set(pool.canaries) == set(asked)
    assert not set(pool.training) & set(pool.canaries)
    assert all(is_canary(prompt) for prompt in pool.canaries)
    assert len(pool.draw(4, np.random.default_rng(0))) == 4


def test_prompts_beyond_the_context_are_counted_and_left_out(tmp_path: Path) -> None:
    town = Town(tmp_path)
    lm = town.learner().reference
    pool = PromptPool(lm, ["short", "word " * 2000], town.log)
    assert pool.training + pool.canaries in (["short"], ["short", "short"])
    assert pool.too_long == 1


# ---------------------------------------------------------------- a reward that is refused


def test_comparisons_that_judgments_imply() -> None:
    prompt = "q"
    said: list[Feedback] = [
        Preference(prompt=prompt, first="a", second="b", choice="second"),
        Preference(prompt=prompt, first="a", second="b", choice="tie"),
        Edit(prompt=prompt, completion="a", corrected="c"),
        Ranking(prompt=prompt, completions=("a", "b", "c"), ranks=(2, 1, 2)),
        Rating(prompt=prompt, completion="d", value=1, scale=THUMB, annotator="x"),
        Rating(prompt=prompt, completion="e", value=0, scale=THUMB, annotator="y"),
        Rating(prompt=prompt, completion="f", value=0, scale=THUMB, annotator="x"),
    ]
    pairs = [(better, worse) for (_, better), (_, worse) in implied_pairs(said)]
    assert pairs == [("b", "a"), ("c", "a"), ("b", "a"), ("d", "f")]


def test_surprise_is_log_two_without_a_reward_and_follows_its_logits(tmp_path: Path) -> None:
    town = Town(tmp_path)
    learner = fed(town, 24)
    source = learner.reward.learned.source
    assert source is not None
    pairs = implied_pairs([item.feedback for item in learner.memory._items.values()])
    np.testing.assert_allclose(surprise(None, pairs), np.log(2))
    same = [pair for pair in pairs if pair[0][0] == pair[1][0]]
    logits = source.choice_logits(
        [a[0] for a, _ in same], [a[1] for a, _ in same], [b[1] for _, b in same], swayed_by_length=True
    )
    np.testing.assert_allclose(surprise(source, same), np.log1p(np.exp(-logits)), rtol=1e-6)


def fed(town: Town, judgments: int) -> LiveLearner:
    """A learner that has refitted its reward to so many judgments, and not yet practiced."""
    learner = town.learner()
    town.talk(judgments)
    heard = learner.memory.listen(0.0)
    learner.prompts.follow(learner.memory.last_seq)
    learner._refit(heard)
    return learner


def turned(learned: LearnedReward) -> LearnedReward:
    """The same with its sign turned."""
    source = learned.source
    assert source is not None
    assert isinstance(source.scorer, LinearHeads)
    heads = replace(source.scorer, weight_HD=-source.scorer.weight_HD)
    return replace(learned, source=replace(source, scorer=heads))


def test_a_reward_with_its_sign_turned_is_never_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    town = Town(tmp_path)
    learner = fed(town, 40)
    good = learner.reward.learned.source
    fit = CarefulReward._fitted
    monkeypatch.setattr(CarefulReward, "_fitted", lambda self, *given: turned(fit(self, *given)))
    town.talk(16)
    learner._refit(learner.memory.listen(0.0))
    assert learner.reward.learned.source is good
    assert [alarm["name"] for alarm in town.stage.events("policy.alarm")] == ["reward_refused"]


def test_honest_refits_are_taken(tmp_path: Path) -> None:
    town = Town(tmp_path)
    learner = fed(town, 24)
    for _ in range(3):
        before = learner.reward.learned.source
        town.talk(12)
        learner._refit(learner.memory.listen(0.0))
        assert learner.reward.learned.source is not before
    assert town.stage.events("policy.alarm") == []


# ---------------------------------------------------------------- the gate


def look(judged: float, seed: int, *, size: int = 192, **changed: Any) -> Look:
    rng = np.random.default_rng(seed)
    usual: dict[str, Any] = {
        "judged_B": rng.normal(judged, 1.0, size),
        "proxy_B": rng.normal(judged, 1.0, size),
        "lengths_B": np.full(size, 40.0),
        "repetition_B": np.zeros(size),
        "disagreement": 0.5,
        "defects": {"rudeness": rng.random(size) < 0.3},
    }
    return Look(**usual | changed)


def test_a_better_version_passes_and_an_equal_one_hardly_ever() -> None:
    first = look(0.0, 0)
    passed = judge_candidate(look(0.8, 1), look(0.0, 2), first, kl=1.0, target_kl=6.0)
    assert passed.passed
    assert passed.reasons == ()
    equal = [judge_candidate(look(0.0, 2 * n), look(0.0, 2 * n + 1), first, kl=1.0, target_kl=6.0) for n in range(400)]
    assert sum("not_better" not in each.reasons and "loses" not in each.reasons for each in equal) <= 0.05 * 400


def let_in(better: float, seed: int, versions: int = 6) -> bool:
    """Whether one of a line of candidates, each `better` by so many deviations, is let in."""
    wealth: tuple[float, ...] = NOTHING_WON
    for at in range(versions):
        number = 100 * seed + 2 * at
        verdict = judge_candidate(
            look(better, number), look(0.0, number + 1), look(0.0, 0), kl=1.0, target_kl=6.0, wealth=wealth
        )
        if verdict.passed:
            return True
        wealth = verdict.wealth
    return False


def test_small_steps_add_up_and_a_line_of_equals_does_not() -> None:
    assert sum(let_in(0.2, seed) for seed in range(40)) > 30
    assert sum(let_in(0.2, seed, versions=1) for seed in range(40)) < 20
    assert sum(let_in(0.0, seed) for seed in range(300)) <= 0.05 * 300


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"lengths_B": np.full(192, 90.0)}, "length"),
        ({"lengths_B": np.full(192, 10.0)}, "length"),
        ({"repetition_B": np.full(192, 0.4)}, "repetition"),
        ({"disagreement": 2.0}, "disagreement"),
        ({"judged_B": np.full(192, np.nan)}, "not_finite"),
        ({"defects": {"rudeness": np.ones(192, bool)}}, "rudeness"),
    ],
)
def test_whatever_the_judge_says_a_gamed_reward_shows(changed: Mapping[str, Any], reason: str) -> None:
    candidate = replace(look(2.0, 1), **changed)
    assert reason in harms(candidate, look(0.0, 2), look(0.0, 3))
    assert reason not in harms(look(2.0, 1), look(0.0, 2), look(0.0, 3))


def test_too_far_from_the_reference_is_refused() -> None:
    verdict = judge_candidate(look(0.8, 1), look(0.0, 2), look(0.0, 0), kl=12.1, target_kl=6.0)
    assert verdict.reasons == ("kl",)
    not_a_number = judge_candidate(look(0.8, 1), look(0.0, 2), look(0.0, 0), kl=float("nan"), target_kl=6.0)
    assert "kl" in not_a_number.reasons


def test_the_kill_switch_sees_harm_and_leaves_equals_alone() -> None:
    assert is_worse(look(-0.8, 1), look(0.0, 2))
    false_alarms = sum(is_worse(look(0.0, 2 * n), look(0.0, 2 * n + 1)) for n in range(400))
    assert false_alarms <= 0.01 * 400 + 4


# ---------------------------------------------------------------- decisions


def thumbs(rng: np.random.Generator, up: float, count: int) -> list[tuple[Scale, int]]:
    return [(THUMB, int(value)) for value in rng.random(count) < up]


def test_people_who_like_it_less_are_heard_and_equals_left_alone() -> None:
    rng = np.random.default_rng(0)
    alarms = [people_turn_away(thumbs(rng, 0.7, 60), thumbs(rng, 0.7, 200)) for _ in range(1000)]
    assert np.mean(alarms) <= 0.01 + 3 * np.sqrt(0.01 * 0.99 / 1000)  # the level of the kill switch
    found = [people_turn_away(thumbs(rng, 0.2, 40), thumbs(rng, 0.8, 200)) for _ in range(100)]
    assert np.mean(found) > 0.9
    assert not any(people_turn_away(thumbs(rng, 0.9, 40), thumbs(rng, 0.3, 200)) for _ in range(100))
    stars = [(Scale(), 1)] * 40
    assert not people_turn_away(stars, thumbs(rng, 1.0, 200))  # another scale says nothing
    assert people_turn_away(stars, [(Scale(), 5)] * 30)
    assert not people_turn_away([], stars)


def test_opinions_are_of_what_a_version_alone_has_said(tmp_path: Path) -> None:
    town = Town(tmp_path)
    person = town.people[0]
    for version in (0, 7):
        said = town.answer(town.prompts[version])
        mixed = [(said[0][0] + "m", replace(said[0][1], weight_versions_T=np.arange(len(said[0][1].token_ids))))]
        town.log.append(list(stored(*mixed[0])))
        for kind in ("thumb", "edit"):
            town.judge(person, kind, said)
            town.judge(person, kind, mixed)
    memory = Memory(town.log, settling_s=0.0)
    memory.listen(0.0)
    assert len(memory) == 8
    assert [scale for scale, _ in memory.opinions(0)] == [THUMB, THUMB]
    assert memory.opinions(1) == []


def test_a_version_that_people_like_less_is_rolled_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge sees nothing wrong with it."""
    town = Town(tmp_path)
    learner = town.learner()
    for version in (1, 2):
        town.stage.activate(version, "gate")
    learner.decisions, learner.newest = town.stage.decided(), 2
    rng = np.random.default_rng(0)
    said = {1: thumbs(rng, 0.9, 60), 2: thumbs(rng, 0.1, 40)}
    monkeypatch.setattr(learner.memory, "opinions", said.__getitem__)
    same = look(0.0, 0)
    learner._look_after(Compared(same, same, same, same, 0.0))
    (back,) = town.stage.events("policy.rolled_back")
    assert (back["version"], back["from"], back["reason"]) == (1, 2, "people")
    assert town.stage.events("policy.alarm")[-1]["name"] == "harm"


def test_decisions_follow_the_log() -> None:
    decisions = Decisions()
    story: list[tuple[str, dict[str, Any], str]] = [
        ("policy.published", {"version": 1}, "system"),
        ("policy.gated", {"version": 1, "passed": True}, "system"),
        ("policy.activated", {"version": 1}, "system"),
        ("policy.activated", {"version": 2}, "system"),
        ("policy.rolled_back", {"version": 1, "from": 2}, "user"),
        ("policy.paused", {"reason": "holiday"}, "user"),
    ]
    for seq, (kind, body, actor_kind) in enumerate(story, start=1):
        decisions.note(event_at(seq, kind, body, actor_kind))
    assert (decisions.serving, decisions.before, decisions.paused, decisions.seq) == (1, 0, "holiday", 6)
    assert decisions.rolled_back == []  # a person did it
    decisions.note(
        event_at(6, "policy.gated", {"version": 3, "passed": False, "wealth": [1.0, 2.0, 0.0, 0.0]}, "system")
    )
    assert decisions.wealth == (1.0, 2.0, 0.0, 0.0)
    decisions.note(event_at(6, "policy.activated", {"version": 1}, "user"))
    assert decisions.wealth == NOTHING_WON
    decisions = replace(decisions, active=[0, 1])
    decisions.note(event_at(7, "policy.rolled_back", {"version": 0, "from": 1}, "system"))
    assert (decisions.serving, decisions.rolled_back) == (0, [1])


def event_at(seq: int, kind: str, body: dict[str, Any], actor_kind: str) -> Any:
    given = NewEvent(kind=kind, actor_id="x", actor_kind=actor_kind, body=body)
    return stored_event(given, seq=seq, event_id=f"e{seq}", ts=0.0)


# ---------------------------------------------------------------- rounds


def weights_of(town: Town, version: int) -> dict[str, torch.Tensor]:
    return open_part(read_manifest(town.registry / f"v{version}.json"))


def test_rounds_publish_report_compare_and_rest_when_nothing_is_new(tmp_path: Path) -> None:
    town = Town(tmp_path)
    learner = town.learner()
    assert not learner.round()  # nobody has said anything
    town.talk(16)
    assert learner.round()
    (published,) = [each for each in town.stage.events("policy.published") if each["version"] > 0]
    (gated,) = town.stage.events("policy.gated")
    assert published["version"] == gated["version"] == 1
    assert published["last_seq"] == learner.memory.last_seq
    assert published["metrics"]["live/joined"] > 0  # people's answers were among the samples
    assert {"refit", "practice", "publish", "compare"} <= set(town.stage.told)
    serving = town.stage.decided().serving
    assert serving == (1 if gated["passed"] else 0)


def test_people_who_contradict_each_other_in_everything_are_survived(tmp_path: Path) -> None:
    town = Town(tmp_path, ["careful", "adversarial"])
    learner = town.learner()
    given = []
    for turn in range(24):
        said = town.answer(town.prompts[7 * turn % len(town.prompts)], 2)
        given += [town.judge(person, "preference", said) for person in town.people]
    assert not learner.round()  # nothing in it says what is better
    assert learner.memory.ids == set(given)  # nobody is dropped
    assert learner.memory.unusable == 0
    (alarm,) = town.stage.events("policy.alarm")
    assert alarm["name"] == "reward_refused"
    town.people.pop()
    town.talk(30)
    assert learner.round()  # it goes on with those who make sense
    (published,) = [each for each in town.stage.events("policy.published") if each["version"] > 0]
    assert published["feedback"] == len(given) + 30


@pytest.mark.parametrize(("jump_s", "heard"), [(0.0, 0), (-3600.0, 5), (3600.0, 5)])
def test_a_clock_that_jumps_holds_nothing_up(tmp_path: Path, jump_s: float, heard: int) -> None:
    """Back by an hour, feedback would be of the future for so long."""
    town = Town(tmp_path)
    town.talk(5)
    memory = Memory(town.log, settling_s=60.0)
    assert len(memory.listen(time.time() + jump_s)) == heard


@pytest.mark.parametrize("precision", ["auto", "float32"])  # in float32 engine and update must agree on each token
def test_a_pause_holds_and_a_roll_back_is_obeyed(tmp_path: Path, precision: Precision) -> None:
    town = Town(tmp_path)
    learner = town.learner(replace(QUICK, precision=precision))
    town.talk(16)
    learner.round()
    person = LogStage(town.log, "user")
    person.activate(1, "I like it")
    person.report("policy.paused", {"reason": "holiday"})
    town.talk(4)
    assert not learner.round()
    person.report("policy.resumed", {})
    person.roll_back(1, "on second thought")
    assert learner.round()
    parent = read_manifest(town.registry / "v2.json").facts["parent"]
    assert parent == 0
    assert learner.lr_scale == 0.5
    untouched = weights_of(town, 0)
    moved = max(float((weights_of(town, 2)[name] - untouched[name]).abs().max()) for name in untouched)
    assert 0 < moved < 0.1


class StoppedError(Exception):
    """The process was killed here."""


class FragileStage(LogStage):
    """Is killed at the n-th thing that it is asked to do, before or after it has done it."""

    left = 10**9
    after = False

    def _append(self, kind: str, body: Mapping[str, Any]) -> None:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise StoppedError
        super()._append(kind, body)
        if self.left == 0:
            raise StoppedError


def story(folder: Path) -> Town:
    """A town where everything was said beforehand: what is learned depends on nothing else."""
    town = Town(folder, seed=3)
    town.talk(30)
    return town


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Town:
    torch.set_num_threads(1)
    town = story(tmp_path_factory.mktemp("whole"))
    with pytest.MonkeyPatch.context() as patches:
        make_small(patches)
        learner = seeded(town)
        for _ in range(3):
            assert learner.round()
    return town


def seeded(town: Town) -> LiveLearner:
    return town.learner(replace(QUICK, seed=1))


@pytest.mark.parametrize("killed_at", [2, 3, 4, 5])
@pytest.mark.parametrize("after", [False, True])
def test_whoever_is_killed_comes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: Town, killed_at: int, after: bool
) -> None:
    town = story(tmp_path)
    fragile = FragileStage(town.log)
    fragile.left, fragile.after = killed_at, after
    town.stage = fragile
    with pytest.raises(StoppedError):
        learner = seeded(town)
        while True:
            learner.round()
    town.stage = LogStage(town.log)
    learner = seeded(town)
    while learner.newest < 3:
        assert learner.round()
    for version in range(1, 4):
        expected, found = weights_of(uninterrupted, version), weights_of(town, version)
        assert all(torch.equal(expected[name], found[name]) for name in expected), version
    assert town.stage.events("policy.gated")[-1] == uninterrupted.stage.events("policy.gated")[-1]
    # what was stored may be said once more by whoever did not hear that it was; the gateway knows it by its key
    gated = [each["version"] for each in town.stage.events("policy.gated")]
    assert sorted(set(gated)) == [1, 2, 3]


def test_a_version_that_passed_its_gate_is_let_in_by_whoever_comes_after_a_kill(tmp_path: Path) -> None:
    town = story(tmp_path)
    seeded(town).round()
    assert town.stage.decided().serving == 0
    town.stage.report("policy.gated", {"version": 1, "passed": True, "reasons": []})  # and here it was killed
    seeded(town)
    assert town.stage.decided().serving == 1


def test_a_damaged_newest_version_is_passed_over(tmp_path: Path) -> None:
    town = story(tmp_path)
    learner = seeded(town)
    learner.round()
    learner.round()
    newest = read_manifest(town.registry / "v2.json")
    data = bytearray(newest.file("state").read_bytes())
    data[-1] ^= 1
    newest.file("state").write_bytes(data)
    again = seeded(town)
    assert (again.parent, again.newest) == (1, 2)
    assert again.round()
    assert next(each.version for each in list_versions(town.registry)) == 3


def test_a_full_disk_in_mid_publish_leaves_nothing_half_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = story(tmp_path)
    learner = seeded(town)
    monkeypatch.setattr("rewardloop.loop.weights.save_file", full_disk)
    with pytest.raises(StoreError, match="No space left"):
        learner.round()
    assert [each.version for each in list_versions(town.registry)] == [0]
    monkeypatch.undo()
    again = seeded(town)
    assert again.round()
    assert again.newest == 1


def full_disk(*_: Any) -> None:
    raise OSError(28, "No space left on device")


# ---------------------------------------------------------------- harm


def test_a_policy_of_not_numbers_is_never_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    town = Town(tmp_path)
    learner = fed(town, 16)

    def poison(*_: Any, **__: Any) -> dict[str, float]:
        with torch.no_grad():
            next(iter(learner.learner.policy.model.parameters())).fill_(float("nan"))
        return {}

    monkeypatch.setattr(learner, "_practice", poison)
    with pytest.raises(Exception, match="finite"):
        learner.resting = None
        learner._settle(learner._publish(learner._practice(())))
    assert town.stage.decided().serving == 0


def test_harm_that_is_served_is_rolled_back_at_the_next_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that says one word for ever was let in by a person who meant well."""
    monkeypatch.setattr(comparison, "AT_ONCE", 64)
    town = Town(tmp_path)
    learner = town.learner()
    town.talk(24)
    learner.round()
    ruined = {name: torch.zeros_like(value) for name, value in weights_of(town, 1).items()}
    publish_version(town.registry, 2, {"policy": ruined}, model="builtin")
    learner.newest = 2
    LogStage(town.log, "user").activate(2, "looks fine")
    for _ in range(3):
        if town.stage.decided().serving != 2:
            break
        town.talk(2)
        learner.round()
    assert town.stage.decided().serving != 2
    assert "harm" in [alarm["name"] for alarm in town.stage.events("policy.alarm")] or town.stage.decided().serving > 2


def test_the_third_roll_back_asks_for_a_person(tmp_path: Path) -> None:
    town = Town(tmp_path)
    learner = town.learner()
    for version in (1, 2, 3):
        town.stage.activate(version, "gate")
        town.stage.roll_back(version, "worse")
    learner.newest = 3
    learner.decisions = town.stage.decided()
    first, bad = look(0.0, 0), look(-2.0, 1)
    town.stage.activate(4, "gate")
    learner.decisions = town.stage.decided()
    learner._look_after(Compared(bad, bad, first, first, 0.0))
    assert town.stage.decided().paused == "roll_backs"
    assert not learner.round()


def test_a_reward_model_is_what_scores(tmp_path: Path) -> None:
    learner = fed(Town(tmp_path), 24)
    assert isinstance(learner.reward.learned.source, RewardModel)
    assert learner.judge.source is None or learner.judge.source.version != learner.reward.learned.source.version
