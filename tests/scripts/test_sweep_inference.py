"""scripts/sweep_inference.py end to end on the shipped checkpoint, and its errors."""

import json
from pathlib import Path

import pytest

from scripts import sweep_inference
from tests.conftest import IMAGE


@pytest.mark.usefixtures("whole_pictures")
def test_writes_rows_table_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", str(IMAGE), "--task", "sudoku", "--max-puzzles", "6", "--steps", "1", "2", "--verifier"]
    more = ["--trajectories", "1", "2", "--noise-std", "0.5", "--output", str(tmp_path / "out")]
    assert sweep_inference.main([*arguments, *more]) == 0
    report = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert len(report["rows"]) == 2 + 2 * 2 * 5  # plain; steps x trajectories x (four choices and any)
    assert report["command"].startswith("trm sweep --model")
    assert {"hardware", "versions", "dataset", "fingerprint"} <= report.keys() and report["precision"] == "float32"
    assert (tmp_path / "out" / "plots" / "sweep.png").stat().st_size > 10_000
    assert report["breadth"] == "noise 0.5 on z_H"
    printed = capsys.readouterr().out
    assert printed.count("| valid |") == 4 and "sweep.json" in printed


def test_views(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", str(IMAGE), "--task", "sudoku", "--max-puzzles", "6", "--steps", "2", "--views", "1", "3"]
    assert sweep_inference.main([*arguments, "--output", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert len(report["rows"]) == 1 + 2 * 4
    assert report["breadth"] == "relabelled views" and report["seed"] == 0
    assert "| trajectories (relabelled views) |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "all trajectories would be the same one"),
        (["--views", "2", "--trajectories", "2"], "--views is a breadth of its own"),
        (["--noise-std", "1", "--views", "2"], "--views is a breadth of its own"),
        (["--noise-std", "1", "--steps", "0"], "steps=[0] is not allowed"),
        (["--noise-std", "-1"], "--noise-std -1.0 is not allowed"),
        (["--noise-std", "1", "--noise-on", "z_L", "--max-puzzles", "2"], "noise_on='z_L': the model has a single"),
        (["--noise-std", "1", "--max-puzzles", "0"], "--max-puzzles must be at least 1, got 0"),
        (["--noise-std", "1", "--data", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str, tmp_path: Path, refused) -> None:
    assert (
        message
        in refused(
            sweep_inference.main,
            [
                "--model",
                str(IMAGE),
                "--task",
                "sudoku",
                "--output",
                str(tmp_path / "out"),
                "--max-puzzles",
                "2",
                *arguments,
            ],
        ).splitlines()[-1]
    )
    assert not (tmp_path / "out").exists()
