"""Recipes: unknown names are refused with the nearest one, values out of range with the place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rewardloop.config import recipe_digest, recipe_values, recipe_yaml, resolve_recipe
from rewardloop.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Engine:
    cylinders: int = 4
    fuel: float = 1.0

    def __post_init__(self) -> None:
        if self.cylinders < 1:
            raise ConfigError("engine.cylinders must be 1 or more")


@dataclass(frozen=True, slots=True)
class Car:
    name: str = "beetle"
    roof: float | None = None
    engine: Engine = field(default_factory=Engine)


def test_file_overrides_defaults_and_set_overrides_file(tmp_path: Path) -> None:
    path = tmp_path / "car.yaml"
    path.write_text("name: van\nengine:\n  cylinders: 6\n")
    car = resolve_recipe(Car, path, ["engine.fuel=1e-5", "roof=2"])
    assert car == Car("van", 2.0, Engine(6, 1e-5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nmae: van", "did you mean name"),
        ("engine:\n  cylnders: 3", "did you mean engine.cylinders"),
        ("engine:\n  cylinders: many", "engine.cylinders: given 'many'"),
        ("engine:\n  cylinders: 0", "must be 1 or more"),
        ("name: a\nname: b", "line 2: 'name' is given twice"),
        ("name: [", "line 1"),
        ("- 1", "a recipe is a mapping"),
    ],
)
def test_a_bad_recipe_says_what_was_given_and_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "car.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="(?s)" + message.replace("[", r"\[")):
        resolve_recipe(Car, path)


def test_missing_file_and_malformed_override() -> None:
    with pytest.raises(ConfigError, match="no recipe at"):
        resolve_recipe(Car, Path("nowhere.yaml"))
    with pytest.raises(ConfigError, match="name=value"):
        resolve_recipe(Car, None, ["engine.fuel"])


def test_a_recipe_is_code_free(tmp_path: Path) -> None:
    path = tmp_path / "car.yaml"
    path.write_text("name: !!python/object/apply:os.system ['true']")
    with pytest.raises(ConfigError, match="not valid YAML"):
        resolve_recipe(Car, path)


def test_round_trip_and_digest(tmp_path: Path) -> None:
    car = resolve_recipe(Car, None, ["name=飞车"])
    path = tmp_path / "car.yaml"
    path.write_text(recipe_yaml(car), encoding="utf-8")
    again = resolve_recipe(Car, path)
    assert again == car
    assert recipe_values(again)["name"] == "飞车"
    assert recipe_digest(again) == recipe_digest(car) != recipe_digest(Car())
