"""Recipes: YAML files checked against a dataclass; unknown names are refused with the nearest one.

A recipe is a tree of frozen dataclasses that live beside the code that uses them; this module only reads,
overrides (`--set optimizer.lr=1e-5`), checks and writes. Nothing here names a class or a function to call.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import json
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from rewardloop.errors import ConfigError

Recipe = TypeVar("Recipe")


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses a name given twice, where plain YAML would keep the last in silence."""


def _mapping_without_duplicates(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    mapping: dict[Hashable, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in mapping:
            raise ConfigError(f"line {key_node.start_mark.line + 1}: {key!r} is given twice; keep one")
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)


def load_yaml(text: str, where: str) -> Any:
    """Parse YAML with plain values only. Raises ConfigError that names `where` and the line."""
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506,TID251 - a subclass of SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{where}{line}: not valid YAML: {getattr(error, 'problem', error)}") from error
    except ConfigError as error:
        raise ConfigError(f"{where}, {error}") from error


def resolve_recipe(
    kind: type[Recipe],
    path: Path | None = None,
    overrides: Iterable[str] = (),
    base: Iterable[str] = (),
) -> Recipe:
    """The defaults of `kind`, changed by `base`, then by the YAML file at `path`, then by `overrides`.

    `base` and `overrides` are of the form "a.b=value".

    Raises ConfigError for a file that is missing or malformed, an unknown name (the nearest one is shown), a value
    of the wrong type or out of range.
    """
    values: dict[str, Any] = {}
    for change in base:
        _apply_override(values, change)
    if path is not None:
        if not path.is_file():
            raise ConfigError(f"no recipe at {path}; give the path of a YAML file")
        loaded = load_yaml(path.read_text(encoding="utf-8"), str(path)) or {}
        if not isinstance(loaded, dict):
            raise ConfigError(f"{path}: a recipe is a mapping of names to values, this is a {type(loaded).__name__}")
        values = _merged(values, loaded)
    for override in overrides:
        _apply_override(values, override)
    return check_recipe(kind, values)


def check_recipe(kind: type[Recipe], values: Mapping[str, Any]) -> Recipe:
    """Build `kind` from plain values. Raises ConfigError as `resolve_recipe` does."""
    _refuse_unknown_names(kind, values, prefix="")
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "recipe"
        given = first.get("input")
        raise ConfigError(f"{place}: given {given!r}; {first['msg'][0].lower()}{first['msg'][1:]}") from error


def recipe_values(recipe: Any) -> dict[str, Any]:
    """Plain values of a resolved recipe, ready for JSON and for `check_recipe`."""
    return json.loads(json.dumps(dataclasses.asdict(recipe), default=str))  # type: ignore[no-any-return]


def recipe_yaml(recipe: Any) -> str:
    return yaml.safe_dump(recipe_values(recipe), sort_keys=False, allow_unicode=True)


def recipe_digest(recipe: Any) -> str:
    """First 12 hexadecimal digits of the SHA-256 of the resolved recipe; equal recipes, equal digests."""
    canonical = json.dumps(recipe_values(recipe), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {
        n: _merged(below[n], v) if isinstance(v, dict) and isinstance(below.get(n), dict) else v
        for n, v in above.items()
    }
    return below | both


def _apply_override(values: dict[str, Any], override: str) -> None:
    name, separator, raw = override.partition("=")
    if not separator or not name:
        raise ConfigError(f"--set takes name=value, for example --set optimizer.lr=1e-5; given {override!r}")
    *path, last = name.strip().split(".")
    place = values
    for part in path:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise ConfigError(f"--set {name}: {part!r} holds a value, not a group of settings")
    value = load_yaml(raw, f"--set {name}")
    # YAML 1.1 reads 1e-5 as text; people mean the number.
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    place[last] = value


def _refuse_unknown_names(kind: Any, values: Any, prefix: str) -> None:
    if not (dataclasses.is_dataclass(kind) and isinstance(values, Mapping)):
        return
    hints = _field_types(kind)
    for name, value in values.items():
        if name not in hints:
            near = difflib.get_close_matches(str(name), list(hints), n=1, cutoff=0.5)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(hints)}"
            raise ConfigError(f"unknown name {prefix}{name}{hint}")
        _refuse_unknown_names(hints[name], value, f"{prefix}{name}.")


def _field_types(kind: Any) -> dict[str, Any]:
    """Resolved field types of a dataclass (annotations are strings under postponed evaluation)."""
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind) if f.init}
