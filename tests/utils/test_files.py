"""Files appear whole or not at all."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modeling_trm.utils.files import replaced, write_json, write_text


def test_round_trip_creates_the_folder(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a" / "b.json", {"figure": 0.1 + 0.2, "name": "Größe"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"figure": 0.1 + 0.2, "name": "Größe"}
    assert os.listdir(tmp_path / "a") == ["b.json"]


def test_failure_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_text(tmp_path / "card.md", "old")

    def full_disk(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["card.md"]


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power loss after the renaming could leave empty files. That of the folder is then synced, too."""
    calls: list[str] = []
    replace, rename = os.replace, os.rename

    def fsync(file: int) -> None:
        paths = (tmp_path, *tmp_path.rglob("*"))
        calls.extend(f"sync {path.name}" for path in paths if os.path.samestat(path.stat(), os.fstat(file)))

    def record(real: Callable[..., None]) -> Callable[..., None]:
        def move(source: Path, target: Path, **options: Any) -> None:
            calls.append(f"{Path(source).name} -> {Path(target).name}")
            real(source, target, **options)

        return move

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", record(replace))
    monkeypatch.setattr(os, "rename", record(rename))
    write_text(tmp_path / "card.md", "text")
    assert calls == ["sync .card.md.trm-part", ".card.md.trm-part -> card.md"]
    calls.clear()
    with replaced(tmp_path / "set") as folder:
        (folder / "a.bin").write_bytes(b"a")
    assert calls == ["sync a.bin", "sync .set.trm-part", ".set.trm-part -> set", f"sync {tmp_path.name}"]


def test_nan_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []
