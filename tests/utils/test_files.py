"""Files appear whole or not at all."""

import json
import os
from pathlib import Path

import pytest

from modeling_trm.utils.files import write_json, write_text


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


def test_nan_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []
