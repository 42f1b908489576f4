"""scripts/diagnose.py end to end on the shipped checkpoint, and its errors."""

import json
from pathlib import Path

import pytest
from PIL import Image

from scripts import diagnose
from tests.conftest import IMAGE


def test_writes_report_page_pictures_and_gif(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    arguments = ["--model", str(IMAGE), "--task", "sudoku", "--max-puzzles", "5", "--max-steps", "3"]
    assert diagnose.main([*arguments, "--batch-size", "2", "--output", str(output)]) == 0
    report = json.loads((output / "diagnosis.json").read_text(encoding="utf-8"))
    assert [row["step"] for row in report["steps"]] == [1, 2, 3]
    assert (len(report["cycles"]), len(report["updates"])) == (3, 12)  # of a step, a cycle of four passes
    assert report["puzzles"] == 5 and report["calibration"]["count"] == 15
    assert report["command"].startswith("trm diagnose --model")
    assert {"hardware", "versions", "dataset", "fingerprint", "warnings"} <= report.keys()
    assert 0 < report["steps"][-1]["cell_accuracy"] <= 1
    page = (output / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/") == 5 and "Does the model know when it is right?" in page
    with Image.open(output / "solving.gif") as gif:
        assert gif.n_frames == 4 and gif.info["loop"] == 0
    assert sorted(p.name for p in (output / "plots").iterdir()) == [
        "answers.png", "latents.png", "reliability.png", "updates.png",
    ]  # fmt: skip
    assert "index.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-puzzles", "0"], "--max-puzzles must be at least 1, got 0"),
        (["--max-steps", "0"], "--max-steps must be at least 1, got 0"),
        (["--data", "nowhere.csv"], "nowhere.csv"),
        (["--task", "maze"], "was made for task 'sudoku', not for --task 'maze'"),
        (["--model", "nowhere"], "no such folder"),
        (["--device", "nonsense"], "device 'nonsense' cannot be used here"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str, tmp_path: Path, refused) -> None:
    first = ["--model", str(IMAGE), "--task", "sudoku", "--max-puzzles", "2", "--output", str(tmp_path / "out")]
    assert message in refused(diagnose.main, [*first, *arguments]).splitlines()[-1]
    assert not (tmp_path / "out").exists()
