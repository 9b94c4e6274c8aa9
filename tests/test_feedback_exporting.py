"""Exports: our own layout loses nothing, through files and through the log; every other one is read back as far as it
can hold a judgment."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from judgments import ANY_FEEDBACK, PLAIN_FEEDBACK
from rewardloop.cli.app import main
from rewardloop.errors import ConfigError, DataError
from rewardloop.feedback.export_layouts import LAYOUTS
from rewardloop.feedback.exporting import export_feedback
from rewardloop.feedback.log.database import data_url
from rewardloop.feedback.log.event_log import EventLog
from rewardloop.feedback.log.transfer import export_from, import_into
from rewardloop.feedback.reading import import_feedback, read_feedback
from rewardloop.types import (
    THUMB,
    Comment,
    Edit,
    Feedback,
    Message,
    Preference,
    Prompt,
    Ranking,
    Rating,
    Scale,
    Span,
)

few = settings(
    phases=[Phase.explicit, Phase.generate],
    max_examples=25,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
ASKED = (Message("user", "Where is honey?"),)


def exported(folder: Path, feedback: list[Feedback], layout: str, form: Any = "jsonl") -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    export_feedback(feedback, folder, layout, form)
    return folder


def same(one: Any, two: Any) -> None:
    assert Counter(map(repr, one)) == Counter(map(repr, two))


# ---------------------------------------------------------------- nothing is lost


@given(st.lists(ANY_FEEDBACK, min_size=1, max_size=6))
@few
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_our_own_layout_loses_nothing(tmp_path: Path, form: str, feedback: list[Feedback]) -> None:
    folder = exported(tmp_path / "out", feedback, "rewardloop", form)
    same(read_feedback(folder), feedback)
    again = exported(tmp_path / "again", read_feedback(folder), "rewardloop", form)
    assert {f.name: f.read_bytes() for f in again.iterdir()} == {f.name: f.read_bytes() for f in folder.iterdir()}


@given(st.lists(ANY_FEEDBACK, min_size=1, max_size=6))
@settings(few, max_examples=15)
def test_the_log_loses_nothing_and_knows_what_it_has(tmp_path: Path, feedback: list[Feedback]) -> None:
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
    with EventLog(data_url(tmp_path / "data"), lambda: 1000.0) as log:
        first = import_into(log, feedback)
        assert (first.stored, first.known, first.skipped) == (len(feedback), 0, {})
        back, seq_range = export_from(log, now=2000.0)
        same(back, feedback)
        assert seq_range == (1, log.last_seq())
        again = import_into(log, feedback)
        assert (again.stored, again.known) == (0, len(feedback))
        assert log.last_seq() == seq_range[1]


def test_equal_judgments_are_different_ones(tmp_path: Path) -> None:
    twice: list[Feedback] = [Comment(prompt="x", completion="a", text="b")] * 2
    with EventLog(data_url(tmp_path), lambda: 1000.0) as log:
        assert import_into(log, twice).stored == 2
        assert import_into(log, [*twice, *twice]).stored == 2
        assert export_from(log, now=2000.0)[0] == twice * 2


# ---------------------------------------------------------------- what each layout holds


def _decided(judgment: Feedback) -> list[tuple[Prompt, str, str]]:
    """(prompt, better, worse), by hand."""
    if isinstance(judgment, Preference) and judgment.choice in ("first", "second"):
        pair = (judgment.first, judgment.second)
        return [(judgment.prompt, *(pair if judgment.choice == "first" else pair[::-1]))]
    if isinstance(judgment, Ranking):
        places = range(len(judgment.ranks))
        wins = [(i, j) for i in places for j in places if judgment.ranks[i] < judgment.ranks[j]]
        texts = judgment.completions
        return [(judgment.prompt, texts[i], texts[j]) for i, j in wins if texts[i] != texts[j]]
    if isinstance(judgment, Edit):
        return [(judgment.prompt, judgment.corrected, judgment.completion)]
    rewrite = getattr(judgment, "rewrite", None)
    if rewrite is not None and rewrite != judgment.completion:  # type: ignore[union-attr]
        return [(judgment.prompt, rewrite, judgment.completion)]  # type: ignore[union-attr]
    return []


def _chosen(preference: Feedback) -> tuple[Prompt, str, str]:
    assert isinstance(preference, Preference)
    assert preference.choice in ("first", "second")
    pair = (preference.first, preference.second)
    return (preference.prompt, *(pair if preference.choice == "first" else pair[::-1]))


@given(st.lists(PLAIN_FEEDBACK, min_size=1, max_size=6))
@few
@pytest.mark.parametrize("layout", ["trl-preference", "hh"])
def test_decided_pairs_are_read_back(tmp_path: Path, layout: str, feedback: list[Feedback]) -> None:
    wanted = [pair for judgment in feedback for pair in _decided(judgment)]
    if not wanted:
        with pytest.raises(DataError, match="choose another layout"):
            export_feedback(feedback, tmp_path / "out", layout)
        return
    folder = exported(tmp_path / "out", feedback, layout)
    found = [_chosen(judgment) for judgment in read_feedback(folder)]
    if layout == "hh":  # an answer may begin with the same words; then they are one turn all the same
        assert [chosen for _, chosen, _ in found] == [chosen for _, chosen, _ in wanted]
    same(found, wanted)


def _in_argilla(judgment: Feedback) -> Feedback | None:
    match judgment:
        case Rating() | Preference() | Ranking():
            return judgment
        case Edit():
            return replace(judgment, criterion="correction")
        case Comment():
            return replace(judgment, criterion="comment")
        case Span():
            return replace(judgment, severity=-1.0)
    return None


def _in_label_studio(judgment: Feedback) -> Feedback | None:
    if isinstance(judgment, Ranking) and sorted(judgment.ranks) != list(range(1, len(judgment.ranks) + 1)):
        return None
    if isinstance(judgment, Ranking):  # told in the order of the ranks
        order = sorted(zip(judgment.ranks, judgment.completions, strict=True))
        return replace(judgment, ranks=tuple(r for r, _ in order), completions=tuple(text for _, text in order))
    return _in_argilla(judgment)


def _in_open_webui(judgment: Feedback) -> Feedback | None:
    match judgment:
        case Rating(scale=scale) if scale == THUMB or scale == Scale(low=1, high=10):
            return replace(judgment, criterion="overall")
        case Comment():
            return replace(judgment, criterion="overall")
        case Preference(choice="first" | "second"):
            return replace(judgment, criterion="overall")
    return None


HELD: dict[str, Callable[[Feedback], Feedback | None]] = {
    "argilla": _in_argilla,
    "label-studio": _in_label_studio,
    "open-webui": _in_open_webui,
}


@given(st.lists(PLAIN_FEEDBACK, min_size=1, max_size=6))
@few
@pytest.mark.parametrize("layout", list(HELD))
def test_annotation_tools_are_read_back(tmp_path: Path, layout: str, feedback: list[Feedback]) -> None:
    wanted = [held for judgment in feedback if (held := HELD[layout](judgment)) is not None]
    if not wanted:
        return
    folder = exported(tmp_path / "out", feedback, layout)
    same(read_feedback(folder), wanted)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert sum(manifest["left_out"].values()) == len(feedback) - len(wanted)


def test_unpaired_prompt_completion_and_steps_by_hand(tmp_path: Path) -> None:
    base: dict[str, Any] = {"prompt": ASKED, "annotator": "ann"}
    stars = [Rating(**base, completion=f"{value} stars", value=value) for value in (1, 3, 5)]
    thumb = Rating(**base, completion="thumb", value=0, scale=THUMB)
    mended = Edit(**base, completion="At the mil", corrected="At the mill")
    bad = Span(**base, completion="one\ntwo\nthree", start=5, end=6, category="wrong")
    good = Span(**base, completion="one\ntwo\nthree", start=0, end=3, category="nice", severity=1.0)
    everything = [*stars, thumb, mended, bad, good]

    unpaired = read_feedback(exported(tmp_path / "a", everything, "trl-unpaired"))
    assert [(j.completion, j.value) for j in unpaired if isinstance(j, Rating)] == [
        ("1 stars", 0),
        ("5 stars", 1),
        ("thumb", 0),
    ]
    folder = exported(tmp_path / "b", everything, "trl-prompt-completion")
    assert [j.completion for j in read_feedback(folder) if isinstance(j, Rating)] == ["5 stars", "At the mill"]
    folder = exported(tmp_path / "c", everything, "trl-stepwise")
    line = json.loads((folder / "texts.jsonl").read_text())
    assert line == {"prompt": "Where is honey?", "completions": ["one", "two", "three"], "labels": [True, False, True]}


def test_trl_takes_the_files_as_they_are(tmp_path: Path) -> None:
    load_dataset = pytest.importorskip("datasets", reason="needs datasets").load_dataset
    is_conversational = pytest.importorskip("trl.data_utils", reason="needs trl").is_conversational
    texts = Preference(prompt="The sky is", first=" blue.", second=" green.", choice="first")
    talk = replace(texts, prompt=ASKED)
    for form in ("jsonl", "parquet"):
        folder = exported(tmp_path / form, [texts, talk], "trl-preference", form)
        kind = "json" if form == "jsonl" else form
        for name, conversational in (("texts", False), ("conversations", True)):
            files = str(folder / f"{name}.{form}")
            (row,) = load_dataset(kind, data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
            assert set(row) == {"prompt", "chosen", "rejected"}
            assert is_conversational(row) == conversational


# ---------------------------------------------------------------- manifest, refusals, the command


def test_the_manifest_says_what_is_there(tmp_path: Path) -> None:
    feedback = [Comment(prompt=ASKED, completion="a", text="b"), Rating(prompt="x", completion="y", value=2)]
    manifest = export_feedback(feedback, tmp_path / "out", "rewardloop", seq_range=(1, 9))
    written = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert written["kinds"] == {"comment": 1, "rating": 1}
    assert written["seq_range"] == [1, 9]
    assert {file.name for file in manifest.files} == {"conversations.jsonl", "texts.jsonl"}
    for file in written["files"]:
        data = (tmp_path / "out" / file["name"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == file["sha256"]
        assert data.count(b"\n") == file["rows"] == 1
    assert manifest.sha256 == export_feedback(feedback, tmp_path / "two", "rewardloop", seq_range=(1, 9)).sha256


def test_refusals_leave_nothing_behind(tmp_path: Path) -> None:
    comment = [Comment(prompt="x", completion="a", text="b")]
    with pytest.raises(ConfigError, match="known are rewardloop, trl-preference"):
        export_feedback(comment, tmp_path / "out", "trl")
    with pytest.raises(ConfigError, match="jsonl or parquet"):
        export_feedback(comment, tmp_path / "out", form="xml")  # type: ignore[arg-type]
    mixed: list[Feedback] = [Rating(prompt=ASKED, completion="a", value=1, criterion="q")]
    mixed.append(Preference(prompt=ASKED, first="a", second="b", choice="first", criterion="q"))
    with pytest.raises(DataError, match="export JSON lines"):
        export_feedback(mixed, tmp_path / "out", "argilla", "parquet")
    assert list(tmp_path.iterdir()) == []


def _call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rewardloop", "feedback", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "pairs.jsonl"
    record = {"prompt": "The sky is", "chosen": " blue.", "rejected": " green.", "annotator": "ann"}
    source.write_text(json.dumps(record) + "\n")
    data, out = str(tmp_path / "data"), tmp_path / "out"
    assert _call(monkeypatch, "import", str(source), "--data", data) == 0
    assert _call(monkeypatch, "import", str(source), "--data", data) == 0
    said = capsys.readouterr().out
    assert "1 judgments stored" in said
    assert "0 judgments stored" in said
    assert _call(monkeypatch, "export", str(out), "--data", data, "--layout", "trl-preference") == 0
    assert json.loads((out / "texts.jsonl").read_text()) == record
    own = ("export", str(tmp_path / "own"), "--from", str(source), "--format", "parquet")
    assert _call(monkeypatch, *own) == 0
    assert import_feedback(tmp_path / "own").feedback == import_feedback(source).feedback
    assert _call(monkeypatch, "export", str(tmp_path / "x"), "--data", str(tmp_path / "nowhere")) == 2
    assert _call(monkeypatch, "export", str(tmp_path / "x"), "--data", data, "--kind", "edit") == 2
    assert "no feedback to export of kind edit" in capsys.readouterr().err


def test_every_layout_is_documented() -> None:
    text = (Path(__file__).parents[1] / "docs" / "storage.md").read_text(encoding="utf-8")
    assert [name for name in LAYOUTS if f"`{name}`" not in text] == []
