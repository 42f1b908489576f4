"""scripts/measure_card.py end to end on a copy of the shipped checkpoint, and its errors."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from datasets_builders.features import load_puzzles
from modeling_trm.evaluation.trained_on import hashes_kept
from scripts import measure_card
from tests.conftest import IMAGE, PUZZLE, SOLVED

FEW = (
    "--steps-puzzles 4 --halting-puzzles 6 --views-puzzles 2 --trajectories-puzzles 2 --steps 2 --halt-steps 3".split()
)
FEWER = "--views 2 3 --trajectories 2 --noise-std 0.3 --batch-size 8".split()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(IMAGE, tmp_path / "model", symlinks=True)


def test_two_data_sets_come_onto_the_card(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "my-own.csv"
    pd.DataFrame({"question": [PUZZLE], "answer": [SOLVED]}).to_csv(mine, index=False)
    old = json.loads((folder / "metrics.json").read_text())
    known = {"trained_on": hashes_kept(load_puzzles("sudoku", "test", data_files=str(mine)).inputs, {})}
    (folder / "metrics.json").write_text(json.dumps(old | known))
    arguments = ["--model", str(folder), "--data", "sample", str(mine), "--output", str(tmp_path / "out"), *FEW, *FEWER]
    assert measure_card.main(arguments) == 0
    report = json.loads((tmp_path / "out" / "measured.json").read_text())
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(report) == ["test", "my-own"] and list(metrics["evaluations"])[-1] == "my-own"
    for entry, counts in (("test", (4, 6, 2, 2)), ("my-own", (1, 1, 1, 1))):
        ways = metrics["evaluations"][entry]["ways"]
        assert ways == report[entry]["ways"] and {row["pass"]: row["count"] for row in ways} == dict(
            zip(("steps", "halting", "views", "trajectories"), counts, strict=True)
        )
    card = (folder / "README.md").read_text()
    assert "### By compute: test" in card and "### By compute: my-own" in card
    assert "| 3 views, most votes; halting at 0.95, up to 2 steps | " in card
    assert "trm measure-card --model" in card and "![my-own accuracy by step]" in card
    printed, told = capsys.readouterr()
    assert f"note: {folder} was trained on 1 of these 1 puzzles" in told
    assert "2 trajectories with noise 0.3, largest halt logit" in printed
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.npz")}
    assert measure_card.main(arguments) == 0  # nothing is run a second time
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.npz")} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps-puzzles", "0", "--halting-puzzles", "0"], "allowed: 0 or more, steps or halting above 0"),
        (["--halt", "1"], "1 is not between 0 and 1"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--data", "nowhere.csv"], "nowhere.csv"),
        (["--data", "a/p.csv", "b/p.csv"], "--data: 'p' would be the card's name of several of these; rename one file"),
        (["--noise-std", "0"], "noise_std=0.0 is not allowed; allowed: above 0"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str, folder: Path, tmp_path: Path, refused) -> None:
    assert message in refused(
        measure_card.main, ["--model", str(folder), "--output", str(tmp_path / "out"), *arguments]
    )
    assert not (tmp_path / "out").exists()
