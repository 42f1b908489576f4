"""No moment at which a process dies loses what was there, or leaves litter behind the next one. POSIX: it forks."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# scenario: (kill before every how manieth operation, at least how many kills). What takes long, at some.
KILLS = {
    "file": (1, 6),
    "folder": (1, 30),
    "card": (2, 18),
    "build": (5, 8),
    "upload": (2, 2),
    "votes": (25, 2),
    "evaluation": (45, 2),
    "training": (250, 2),
}


def test_killed_at(tmp_path: Path) -> None:
    """In one process: most of the time goes into what it imports."""
    asked = [f"{name}={every}" for name, (every, _) in KILLS.items()]
    command = [sys.executable, "-m", "tests.robustness.kills", str(tmp_path), *asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("killed ")]
    killed = {name: int(number) for _, name, number in lines}
    assert {name: killed[name] >= least for name, (_, least) in KILLS.items()} == dict.fromkeys(KILLS, True)
