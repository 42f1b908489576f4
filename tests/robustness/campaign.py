"""The long campaign: thousands of malformed inputs, processes killed at every file operation. `make campaign`.

    python -m tests.robustness.campaign [SCENARIO=EVERY ...]

prints what was tried and what was wrong as a table; exit code 1 if anything was. SCENARIO=EVERY kills before each
EVERY-th operation only, SCENARIO=0 leaves it out.
"""

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from modeling_trm.utils.machine import describe_machine
from tests.robustness.inputs import cases, judge
from tests.robustness.scenarios import SCENARIOS

EACH = 500  # inputs of a kind


def main() -> int:
    every = dict.fromkeys(SCENARIOS, 1) | {
        name: int(text) for name, _, text in (a.partition("=") for a in sys.argv[1:])
    }
    with tempfile.TemporaryDirectory() as folder:
        tried, wrong = try_inputs(Path(folder))
        killed = dict.fromkeys(every, 0)
        for name, step in every.items():
            if step:
                killed[name], problem = try_kills(name, step, Path(folder))
                wrong += filter(None, [problem])
    print("\n".join([describe_machine(), "", "| tried | number | wrong |", "|---|---:|---:|"]))
    for kind, number in (*tried.items(), *((f"kills: {name}", number) for name, number in killed.items())):
        print(f"| {kind} | {number:,} | {sum(one.startswith(kind + ' ') for one in wrong)} |")
    print("\n".join([f"inputs: {tried.total()}, kills: {sum(killed.values())}, wrong: {len(wrong)}", *wrong]))
    return 1 if wrong else 0


def try_inputs(folder: Path) -> tuple[Counter[str], list[str]]:
    """(how many of each kind, what was wrong)."""
    tried: Counter[str] = Counter()
    wrong = []
    for case in cases(seed=1, each=EACH, folder=folder):
        tried[case.name.split()[0]] += 1
        wrong += filter(None, [judge(case)])
    return tried, wrong


def try_kills(name: str, every: int, folder: Path) -> tuple[int, str | None]:
    """(how many processes were killed, what was wrong)."""
    command = [sys.executable, "-m", "tests.robustness.kills", str(folder), f"{name}={every}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        problem = f"kills: {name} {done.stderr.strip().splitlines()[-1]}"
        print(problem, file=sys.stderr, flush=True)
        return 0, problem
    print(done.stdout.splitlines()[-1], file=sys.stderr, flush=True)
    return int(done.stdout.split()[-1]), None


if __name__ == "__main__":
    sys.exit(main())
