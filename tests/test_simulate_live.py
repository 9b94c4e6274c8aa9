"""`rewardloop simulate --live`: the whole product, its real processes, simulated people who come by HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from rewardloop.cli.simulate_live import Visit, simulate_live
from rewardloop.errors import ConfigError, StoreError
from rewardloop.loop.live.crowd import Crowd, Given, median
from rewardloop.loop.live.stage import GatewayStage, RefusedError
from rewardloop.loop.manifests import is_intact, list_versions

SMALL = "reference_samples: 64\nsampling: {prompts: 4, group_size: 2, max_tokens: 24}\n"


def test_people_come_by_http_and_what_they_said_is_learned(tmp_path: Path) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(SMALL)
    visit = Visit("careful,noisy", events=16, per_second=4.0, longest_s=120.0)
    found = simulate_live(tmp_path / "run", visit, recipe, Console(quiet=True))
    assert found.events == 16
    assert found.median_learned_s is not None
    assert found.median_learned_s < 60
    assert -2 < found.gain_low <= found.gain <= found.gain_high < 2
    told = json.loads((tmp_path / "run/live.json").read_text())
    seqs = [each["seq"] for each in told["given"]]
    assert len(set(seqs)) == 16
    versions = list_versions(tmp_path / "run/data/weights")
    assert versions[-1].version == 0
    assert versions[0].version >= 1
    assert all(is_intact(version) for version in versions)
    assert versions[0].facts["last_seq"] >= max(seqs)
    assert not (tmp_path / "run/data/operator.json").exists()  # nobody is left who could be spoken to


def test_a_live_run_begins_afresh_and_knows_its_people(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(ConfigError, match="name another --out"):
        simulate_live(tmp_path, Visit(), None, Console(quiet=True))
    with pytest.raises(ConfigError, match="unknown annotators grumpy"):
        simulate_live(tmp_path / "new", Visit("grumpy"), None, Console(quiet=True))


def test_times_run_from_the_acknowledgment_until_a_version_has_heard_it() -> None:
    crowd = Crowd("http://nowhere", "key", (), (), 0, given=[Given(seq=5, at=0.0), Given(seq=9, at=0.0)])
    crowd.look({"learned": 5, "live": 0, "active": 0})
    first, second = crowd.given
    assert first.learned_s is not None
    assert first.live_s is second.learned_s is None
    crowd.look({"learned": 9, "live": 9, "active": 4})
    assert (first.version, second.version) == (4, 4)
    assert first.learned_s < second.learned_s  # type: ignore[operator]
    assert median([None, 1.0, 3.0]) == 2.0
    assert median([None]) is None


def test_a_gateway_that_is_gone_for_long_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardloop.loop.live.stage.PATIENCE_S", 0.3)
    stage = GatewayStage("http://127.0.0.1:9", "token")
    stage.progress({"phase": "waiting"})  # lost without harm
    with pytest.raises(StoreError, match="does not answer") as caught:
        stage.report("policy.paused", {"reason": "x"})
    assert not isinstance(caught.value, RefusedError)
