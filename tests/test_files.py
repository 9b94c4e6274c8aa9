"""Files are whole or not there, also when the body fails or the disk is full."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from rewardloop import files
from rewardloop.errors import StoreError


def test_a_failing_body_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.txt"
    files.write_text(path, "old")
    with pytest.raises(KeyError), files.written_whole(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for text in ("one", "two"):
        with files.written_whole(path) as temporary:
            temporary.mkdir()
            (temporary / f"{text}.txt").write_text(text)
    assert [p.name for p in path.iterdir()] == ["two.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_is_a_store_error_and_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.txt"
    files.write_text(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_only_what_was_written_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A neighbor that vanishes meanwhile (another process cleans up) is no business of ours."""
    (tmp_path / "neighbor").mkdir()
    (tmp_path / "neighbor" / "file").write_text("x")
    opened: list[Path] = []
    real_open = files.os.open
    monkeypatch.setattr(files.os, "open", lambda path, flags: opened.append(Path(path)) or real_open(path, flags))
    with files.written_whole(tmp_path / "model") as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("w")
    assert {path.name.split(".")[-1] for path in opened} == {"tmp", "weights", tmp_path.name}
