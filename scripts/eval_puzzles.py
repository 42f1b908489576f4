"""`trm evaluate` or `trm vote`, by what the arguments ask for: arc's test inputs and several views of a puzzle vote.

python scripts/eval_puzzles.py --model DIR --task sudoku --output runs/evaluation       is trm evaluate
python scripts/eval_puzzles.py --model DIR --task arc --output runs/arc                 is trm vote
"""

import argparse
import sys
from collections.abc import Sequence

from modeling_trm.commands import evaluate, vote


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--task")
    parser.add_argument("--split", default="test")
    parser.add_argument("--max-augmentations", "--views", dest="views")
    parser.add_argument("--no-voting", action="store_true")
    asked, rest = parser.parse_known_args(argv)
    arguments = [*(["--task", asked.task] if asked.task else []), "--split", asked.split, *rest]
    asks_arc = asked.task == "arc" and asked.split == "test" and not asked.no_voting
    if asks_arc or asked.views not in (None, "1") or "--shard" in rest:
        return vote.main([*arguments, *(["--views", asked.views] if asked.views else [])])
    return evaluate.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
