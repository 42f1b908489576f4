"""No moment at which a process dies loses what was there, or leaves litter behind the next one. POSIX: it forks."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# scenario, kill before every how manieth operation, at least how many kills
KILLS = [("file", 1, 3), ("folder", 1, 12), ("card", 1, 12), ("training", 250, 2)]


@pytest.mark.parametrize(("scenario", "every", "least"), KILLS)
def test_killed_at(scenario: str, every: int, least: int, tmp_path: Path) -> None:
    """At every operation on a file; a training, which takes long, at some."""
    command = [sys.executable, "-m", "tests.robustness.kills", scenario, str(tmp_path / "work"), str(every)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) >= least
