"""The long campaign: thousands of malformed inputs, processes killed at every file operation. `make campaign`.

Prints what was tried and what was wrong; exit code 1 if anything was.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.robustness.inputs import cases, judge
from tests.robustness.kills import SCENARIOS

EACH = 500  # inputs of a kind
EVERY = {"training": 3}  # of its operations; of the others every one


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        tried, wrong = 0, []
        for case in cases(seed=1, each=EACH, folder=Path(folder)):
            tried += 1
            wrong += filter(None, [judge(case)])
        killed = 0
        for scenario in SCENARIOS:
            command = [sys.executable, "-m", "tests.robustness.kills", scenario, f"{folder}/{scenario}"]
            done = subprocess.run([*command, str(EVERY.get(scenario, 1))], capture_output=True, text=True)
            if done.returncode:
                wrong.append(f"killed {scenario}: {done.stderr.strip().splitlines()[-1]}")
            else:
                killed += int(done.stdout.split()[-1])
    print("\n".join([*wrong, f"inputs: {tried}, kills: {killed}, wrong: {len(wrong)}"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
