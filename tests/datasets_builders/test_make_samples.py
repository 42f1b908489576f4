"""scripts/make_samples.py: deterministic, keeps the mix of ratings, and keeps families in one split."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets_builders.features import PuzzleSet, load_puzzles
from modeling_trm.augmentation_trm import SudokuDraws
from scripts import make_samples

PLAN = {"gen_unbiased": ("sudoku_easy", (20, 10, 40))}


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(make_samples, "SUDOKU", PLAN)
    monkeypatch.setattr(make_samples, "OTHER_SIDES", {4: (5, 0, 0)})
    monkeypatch.setattr(make_samples, "MAZE", {"gen_maze_30x30_hard": ("maze_hard", (5, 5, 10))})
    return make_samples


def full_files(folder):
    """Stand-ins for the full files; half of the training rows are images of test rows, which must give way."""
    test = load_puzzles("sudoku", "test")
    test = test.select(np.flatnonzero(test.sources == "gen_unbiased")[:100])
    other = load_puzzles("sudoku", "validation")
    other = other.select(np.flatnonzero(other.sources == "gen_unbiased")[:100])
    draws = SudokuDraws.draw(0, np.arange(100))
    images = PuzzleSet(
        "sudoku", draws.apply(test.inputs), draws.apply(test.labels), test.sources, test.ratings, test.processor
    )
    pq.write_table(test.to_table(), folder / "sudoku_easy_test.parquet")
    pq.write_table(pa.concat_tables([images.to_table(), other.to_table()]), folder / "sudoku_easy_train.parquet")
    for split in ("train", "test"):
        pq.write_table(load_puzzles("maze", split).to_table(), folder / f"maze_hard_{split}.parquet")


def test_samples_are_deterministic_and_apart(script, tmp_path, capsys):
    full_files(tmp_path)
    for name in ("a", "b"):
        assert script.main(["--data-dir", str(tmp_path), "--output", str(tmp_path / name)]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out[: captured.out.index("}\n{") + 1])["rows"]["sudoku/train"] == {"gen_unbiased": 40}
    assert "180 of 200 rows are of no family taken before" in captured.err  # 20 images of the chosen test rows
    files = sorted(file.relative_to(tmp_path / "a") for file in (tmp_path / "a").rglob("*") if file.is_file())
    assert len(files) == 8 + 5  # and the mazes of other sizes
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    parts = {split: load_puzzles("sudoku", split, data_dir=tmp_path / "a" / "sudoku") for split in ("train", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 40, "test": 20}


def test_wrong_input_is_told(script, tmp_path, capsys):
    assert script.main(["--data-dir", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    assert "sudoku_easy_test.parquet" in capsys.readouterr().err
    full_files(tmp_path)
    script.SUDOKU["gen_unbiased"] = ("sudoku_easy", (20, 10, 4000))
    assert script.main(["--data-dir", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    assert "4000 rows wanted of 170" in capsys.readouterr().err
