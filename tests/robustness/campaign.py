"""The long campaign: thousands of malformed inputs, processes killed at every file operation. `make campaign`.

    python -m tests.robustness.campaign [SCENARIO=EVERY ...]

prints what was tried and what was wrong as a table; exit code 1 if anything was. SCENARIO=EVERY kills at each EVERY-th
of the moments that kills.py finds only, SCENARIO=0 leaves it out.
"""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from modeling_trm.utils.machine import describe_machine
from tests.robustness.inputs import cases, judge
from tests.robustness.scenarios import SCENARIOS

EACH = 500  # inputs of a kind
SHARES = {"training": 4, "evaluation": 2}  # among so many processes: a kill takes seconds
AT_A_TIME = 2 * (os.cpu_count() or 1)  # they wait for the disk


def main() -> int:
    asked = dict(argument.split("=") for argument in sys.argv[1:])
    every = {name: int(asked.get(name, 1)) for name in SCENARIOS}
    shares = [(name, share) for name, step in every.items() if step for share in range(SHARES.get(name, 1))]
    shares.sort(key=lambda share: share[0] not in SHARES)  # the longest first
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_A_TIME) as pool:
        started = [(name, pool.submit(try_kills, name, share, every[name], folder)) for name, share in shares]
        tried, wrong = try_inputs(Path(folder))
        results = [(name, *future.result()) for name, future in started]
    wrong += [problem for *_, problem in results if problem is not None]
    print("\n".join([describe_machine(), "", "| tried | number | wrong |", "|---|---:|---:|"]))
    killed: Counter[str] = Counter()
    for name, number, _ in results:
        killed[f"kills: {name}"] += number
    for kind, number in (tried | dict(killed)).items():
        print(f"| {kind} | {number:,} | {sum(one.startswith(kind + ' ') for one in wrong)} |")
    print("\n".join([f"inputs: {sum(tried.values())}, kills: {sum(killed.values())}, wrong: {len(wrong)}", *wrong]))
    return 1 if wrong else 0


def try_inputs(folder: Path) -> tuple[dict[str, int], list[str]]:
    """(how many of each kind, what was wrong)."""
    tried: Counter[str] = Counter()
    wrong = []
    for case in cases(seed=1, each=EACH, folder=folder):
        tried[case.name.split()[0]] += 1
        wrong += filter(None, [judge(case)])
    return dict(tried), wrong


def try_kills(name: str, share: int, every: int, folder: str) -> tuple[int, str | None]:
    """(how many processes were killed, what was wrong) of a share of a scenario."""
    which = f"{name}={every * SHARES.get(name, 1)}+{every * share}"
    command = [sys.executable, "-m", "tests.robustness.kills", f"{folder}/{share}", which]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
    if done.returncode:
        problem = f"kills: {name} {done.stderr.strip().splitlines()[-1]}"
        print(problem, file=sys.stderr, flush=True)
        return 0, problem
    print(done.stdout.splitlines()[-1], file=sys.stderr, flush=True)
    return int(done.stdout.split()[-1]), None


if __name__ == "__main__":
    sys.exit(main())
