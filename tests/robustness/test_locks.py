"""One process on one output folder, in every command that writes results: the second is told which one is at it."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_trm.cards.update import LOCKED, PLAN, WORKPLACE, CardUpdate, finish_update
from modeling_trm.experiments import recipes
from modeling_trm.utils import locks
from modeling_trm.utils.files import alone_in, clear_up, part_of, write_json, write_text
from modeling_trm.utils.locks import LOCK, InUseError
from tests.forked import run_forked
from tests.robustness.test_outputs import ROOT, hold, let_go

MODEL = ["--model", "no-such-model"]
COMMANDS = {
    "evaluate": MODEL,
    "vote": [*MODEL, "--device", "cpu", "--views", "2"],
    "vote_report": ["no-such-votes"],
    "sweep": [*MODEL, "--noise-std", "0.1"],
    "compare": ["--models", "no-such-model", "no-other-model"],
    "certify": MODEL,
    "diagnose": MODEL,
    "measure_card": MODEL,
    "benchmark": [],
    "loop_experiment": [],
}


def test_the_second_command_is_told(tmp_path: Path, refused) -> None:
    process = hold(tmp_path / "results")
    for name, arguments in COMMANDS.items():
        command = importlib.import_module(f"modeling_trm.commands.{name}")
        assert f"process {process.pid} on " in refused(
            command.main, [*arguments, "--output", str(tmp_path / "results")]
        ), name
    assert [path.name for path in (tmp_path / "results").iterdir()] == [LOCK]
    let_go(process)


def test_shards_share_a_folder_but_none_is_run_twice(tmp_path: Path, refused) -> None:
    from modeling_trm.commands import vote

    process = hold(tmp_path / "results", f"{LOCK}-0-of-2")
    told = {"0/2": f"process {process.pid} on ", "1/2": "no such folder"}  # the second goes on to what it misses
    for shard, words in told.items():
        assert words in refused(vote.main, [*COMMANDS["vote"], "--shard", shard, "--output", str(tmp_path / "results")])
    let_go(process)


def test_recipes_are_compared_by_several_commands_but_no_run_is_run_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused
) -> None:
    """Its runs are trainings, each with a folder of its own; the report is written by one command at a time."""
    from modeling_trm.commands import compare_recipes

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        done = run_forked(*command[1:], cwd=ROOT)
        sys.stderr.write(done.stderr)
        return done

    monkeypatch.setattr(recipes.subprocess, "run", run)
    process = hold(tmp_path / "quickstart" / "seed-3")
    assert f"seed-3: process {process.pid} on " in refused(
        compare_recipes.main, ["quickstart", "--seeds", "3", "--output", str(tmp_path)]
    )
    let_go(process)


def test_who_waits_is_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process, real = hold(tmp_path), locks._lock

    def lock(file: int, wait: bool) -> bool:
        assert wait
        let_go(process)  # it goes while we wait
        return real(file, wait)

    monkeypatch.setattr(locks, "_lock", lock)
    with alone_in(tmp_path, wait=True):
        assert (tmp_path / LOCK).exists()


def test_nothing_is_left_of_a_command_that_was_refused(tmp_path: Path, refused) -> None:
    from modeling_trm.commands import evaluate

    refused(evaluate.main, [*MODEL, "--output", str(tmp_path / "new" / "results")])
    assert not (tmp_path / "new").exists()


def test_what_a_living_process_writes_is_not_cleared_up(tmp_path: Path) -> None:
    """An evaluation in runs/ beside a training in runs/mine."""
    part = part_of(tmp_path / "mine" / "step")
    write_text(part / "weights", "half")
    process = hold(tmp_path / "mine", f".step{LOCK}")
    clear_up(tmp_path)
    assert (part / "weights").read_text() == "half"
    let_go(process)
    clear_up(tmp_path)
    assert not part.exists()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_json(tmp_path / "model" / "config.json", {})
    write_json(tmp_path / "model" / "preprocessor_config.json", {})
    return tmp_path / "model"


def test_a_card_is_updated_by_one_process(checkpoint: Path) -> None:
    process = hold(checkpoint, LOCKED)
    with pytest.raises(InUseError, match=f"process {process.pid} on "):
        CardUpdate.begin(checkpoint, "test", may_replace=False)
    let_go(process)
    CardUpdate.begin(checkpoint, "test", may_replace=False)


def test_an_update_that_was_killed_is_undone_and_not_cleared_away(checkpoint: Path) -> None:
    write_text(checkpoint / WORKPLACE / "old" / "README.md", "old")
    write_text(checkpoint / "README.md", "new")
    write_json(checkpoint / WORKPLACE / PLAN, {"new": ["README.md"], "old": ["README.md"]})
    clear_up(checkpoint.parent)
    finish_update(checkpoint)
    assert (checkpoint / "README.md").read_text() == "old"
    assert not (checkpoint / WORKPLACE).exists()


def test_undoing_touches_nothing_outside_of_the_folder(checkpoint: Path, tmp_path: Path) -> None:
    write_text(tmp_path / "thesis.txt", "years of work")
    write_json(checkpoint / WORKPLACE / PLAN, {"new": ["../thesis.txt"], "old": []})
    with pytest.raises(ValueError, match=r"names \.\./thesis\.txt, which is not in "):
        finish_update(checkpoint)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
