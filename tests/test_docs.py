"""Every setting, metric, method and verb is documented."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from rewardloop.feedback.log.submissions import Submission
from rewardloop.loop.recipe import Recipe
from rewardloop.metrics import METRICS
from rewardloop.optimize.policy_gradient import METHODS
from rewardloop.serve.edge.access import TABLE

ROOT = Path(__file__).resolve().parents[1]


def _settings(kind: Any, prefix: str = "") -> list[tuple[str, Any]]:
    hints, found = get_type_hints(kind), []
    for item in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[item.name]):
            found += _settings(hints[item.name], f"{prefix}{item.name}.")
        else:
            found.append((prefix + item.name, item.default))
    return found


def test_every_setting_is_in_the_table_with_its_default() -> None:
    rows = [
        line.split("|")
        for line in (ROOT / "docs/recipes.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    documented = {row[1].strip().strip("`"): row[2].strip() for row in rows}
    settings = dict(_settings(Recipe))
    assert documented.keys() == settings.keys()
    for name, default in settings.items():
        text = documented[name]
        if isinstance(default, bool) or default is None:
            assert text == {True: "true", False: "false", None: "null"}[default]
        elif isinstance(default, int | float):
            assert float(text) == default, name
        else:
            assert text == default
    assert len(settings) < 30


def test_every_metric_is_in_the_table() -> None:
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    for name, metric in METRICS.items():
        assert f"| `{name}` | {metric.formula.replace('|', '/')} | {metric.healthy} |" in text


def test_every_method_is_described() -> None:
    text = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    assert [name for name in METHODS if f"`{name}`" not in text] == []


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_readme_names_both_commands_and_every_verb_and_its_links_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for wanted in (
        "make demo",
        "make test",
        "rewardloop up",
        "feedback",
        "simulate",
        "train-reward",
        "optimize",
        "score",
        "evaluate",
        "doctor",
    ):
        assert wanted in text
    for link in [part.split(")")[0] for part in text.split("](")[1:]]:
        assert link.startswith("http") or (ROOT / link).exists(), link


def test_every_route_of_programs_and_every_kind_of_feedback_is_described() -> None:
    text = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    assert [path for _, path in TABLE if path.startswith("/v1/") and path.split("/")[2] not in text] == []
    kinds = [get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(Submission)]
    assert len(kinds) == 9
    assert [kind for kind in kinds if f"| `{kind}` |" not in text] == []
