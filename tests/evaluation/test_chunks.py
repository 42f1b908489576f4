"""Evaluations in chunks: nothing is run twice, nothing of another evaluation is taken."""

from pathlib import Path

import numpy as np
import pytest

from modeling_trm.evaluation.chunks import Outcome, run_in_chunks


def squares(calls: list[list[int]]):
    def run(numbers: np.ndarray) -> Outcome:
        calls.append(numbers.tolist())
        return {"squares": numbers**2}

    return run


def again(folder: Path, calls: list[list[int]], count: int = 7, size: int = 3, **manifest: int) -> Outcome:
    return run_in_chunks(squares(calls), count, folder, manifest, chunk_size=size, title="test", progress=False)


def test_what_is_there_is_not_run_again(tmp_path: Path) -> None:
    calls: list[list[int]] = []
    outcome = again(tmp_path, calls, seed=1)
    assert outcome["squares"].tolist() == [0, 1, 4, 9, 16, 25, 36] and len(outcome["seconds"]) == 7
    assert calls == [[0, 1, 2], [3, 4, 5], [6]]
    (tmp_path / "chunk-000001.npz").unlink()
    resumed = again(tmp_path, calls, seed=1)
    assert calls[3:] == [[3, 4, 5]] and resumed["squares"].tolist() == outcome["squares"].tolist()
    assert resumed["seconds"][[0, 6]].tolist() == outcome["seconds"][[0, 6]].tolist()


def test_another_evaluation_is_refused_by_name(tmp_path: Path) -> None:
    again(tmp_path, [], seed=1)
    for changed, message in (
        ({"seed": 2}, "its seed is 1, this one's 2; choose another folder"),
        ({"seed": 1, "halt": 0}, "its halt is None, this one's 0"),
        ({"seed": 1, "size": 4}, "its chunk_size is 3, this one's 4"),
    ):
        with pytest.raises(ValueError, match=message):
            again(tmp_path, [], **changed)


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    again(tmp_path, [], seed=1)
    (tmp_path / "chunk-000001.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match=r"chunk-000001\.npz: cannot be read .* remove it: only its puzzles"):
        again(tmp_path, [], seed=1)
