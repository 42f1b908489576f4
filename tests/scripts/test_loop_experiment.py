"""scripts/loop_experiment.py end to end at a tiny size: what it writes, that it goes on after a stop, its errors."""

import json
from pathlib import Path

import pytest

from scripts import loop_experiment

TINY = "--train-loops 1 --loops 3 --steps 2 --batch-size 2 --test-puzzles 3 --threads 1 --device cpu".split()


def run(output: Path, *arguments: str) -> int:
    return loop_experiment.main(["--output", str(output), *TINY, *arguments])


@pytest.mark.usefixtures("whole_pictures")
def test_writes_results_table_and_plot_and_goes_on_after_a_stop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refused
) -> None:
    output = tmp_path / "out"
    assert run(output, "--arms", "bare", "--seeds", "1") == 0
    first = output / "arms" / "bare-1.json"
    before, written_at = json.loads(first.read_text()), first.stat().st_mtime_ns
    assert run(output, "--arms", "trm-inject", "bare", "--seeds", "0", "1") == 0
    assert first.stat().st_mtime_ns == written_at  # not run again
    report = json.loads((output / "loops.json").read_text())
    assert [(r["arm"], r["seed"]) for r in report["results"]] == [
        ("bare", 0), ("bare", 1), ("trm-inject", 0), ("trm-inject", 1),
    ]  # fmt: skip
    assert report["results"][1] == before
    assert before["steps_trained"] == 2 and [row["loop"] for row in before["loops"]] == [1, 2, 3]
    assert before["switches"]["stack"] == "pre-norm" and before["settings"]["train_loops"] == 1
    assert {"hardware", "versions", "command"} <= report.keys()
    assert (output / "plots" / "loops.png").stat().st_size > 20_000
    assert (output / "loops.md").read_text() in capsys.readouterr().out
    assert "bare-1.json was run with steps=2, not 3; give another --output" in refused(
        run, output, "--arms", "bare", "--seeds", "1", "--steps", "3"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arms", "injekt"], "--arms names 'injekt'; allowed: bare, index, norm"),
        (["--arms", "bare", "bare"], "--arms names one twice: bare bare"),
        (["--seeds", "0", "0"], "--seeds names one twice: 0 0"),
        (["--seeds", "-1"], "seed=-1 is not allowed; allowed: whole numbers from 0"),
        (["--threads", "0"], "--threads: 0 is not allowed; allowed: 1 to 1024"),
        (["--loops", "1"], "loops=1 is not allowed; allowed: more than train_loops=1"),
        (["--source", "gen_maze"], "source='gen_maze' is not in the sample"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str, tmp_path: Path, refused) -> None:
    assert message in refused(run, tmp_path / "out", *arguments).splitlines()[-1]
    assert not (tmp_path / "out").exists()
