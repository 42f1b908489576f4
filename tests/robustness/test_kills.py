"""No moment at which a process dies loses what was there, or leaves litter behind the next one. POSIX: it forks."""

from pathlib import Path

from tests.forked import run_forked

ROOT = Path(__file__).parents[2]
# scenario: (kill at every how manieth moment, at least how many kills). What takes long, at some.
KILLS = {
    "file": (1, 3),
    "folder": (1, 15),
    "card": (2, 12),
    "build": (5, 4),
    "upload": (2, 4),
    "votes": (15, 2),
    "evaluation": (28, 2),
    "training": (200, 2),
}


def test_killed_at(tmp_path: Path) -> None:
    """In one process: most of the time goes into what it imports."""
    asked = [f"{name}={every}" for name, (every, _) in KILLS.items()]
    done = run_forked("-m", "tests.robustness.kills", str(tmp_path), *asked, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("killed ")]
    killed = {name: int(number) for _, name, number in lines}
    assert {name: killed[name] >= least for name, (_, least) in KILLS.items()} == dict.fromkeys(KILLS, True)
