"""Train recipes with the same FLOPs and several seeds, and compare them on the same test puzzles.

examples:
  trm compare-recipes sudoku-cpu-act sudoku-cpu-dis \
      --seeds 0 1 2 --output runs/act-and-dis
  trm compare-recipes mine.yaml sudoku-cpu-act --import my_ops.py --output runs/mine-and-act
  trm compare-recipes A.yaml B.yaml --flops 1e14 --seeds 0 1 --output runs/a-and-b --set test_puzzles=512
  trm compare-recipes sudoku-cpu-act --vary muon_lr=0.005 --vary plain ema_decay=0 reveal_start=0 --output runs/ablation

The budget is --flops, or what the first recipe's own train_steps cost; every recipe gets as many steps as it buys. The
score is exact accuracy after as many forward passes of the stack as all of them reach, and after each one's last step;
there also for each source of puzzles. A name before the fields of a variation is what the report calls it.
A run that was stopped goes on, one that is complete is not repeated: so seeds can be added later, and several of these
commands with different --seeds may share the work; the report is of the seeds of the last one, so end with all.

Writes OUTPUT/NAME/seed-N/ (the runs), OUTPUT/comparison.json, comparison.md and plots/recipes.png.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from .options import CommandParser, add_import, add_output, given, print_written, valid_seed


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("compare-recipes", __doc__)
    parser.add_argument(
        "recipes",
        nargs="+",
        metavar="RECIPE",
        help="names or files; the others are compared to the first",
    )
    add_import(parser)
    add_output(parser, "the runs and the report")
    parser.add_argument("--flops", type=float, metavar="N", help="training FLOPs of each run (default: the first's)")
    parser.add_argument("--seeds", type=valid_seed, nargs="+", default=[0], metavar="N", help="(default: 0)")
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        nargs="+",
        metavar=("[NAME] FIELD=VALUE", "FIELD=VALUE"),
        help="compare the first recipe with these fields too, under this name; give it again for another variation",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="override a field of every recipe"
    )
    arguments = parser.parse_args(argv)
    # The first word of a variation is its name if it is no FIELD=VALUE.
    arguments.vary = [("", words) if "=" in words[0] else (words[0], words[1:]) for words in arguments.vary]
    for label, fields in arguments.vary:
        if not fields:
            parser.error(f"--vary {label!r}: expected [NAME] FIELD=VALUE, and perhaps more fields")
    names = [Path(recipe).stem for recipe in arguments.recipes]
    names += [label or ", ".join(fields) for label, fields in arguments.vary]
    for what, values in (("recipe name", names), ("seed", arguments.seeds)):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            parser.error(f"the {what} {twice[0]} is given twice")
    if arguments.flops is not None and not 0 < arguments.flops < math.inf:
        parser.error(f"--flops must be above 0 and finite, got {arguments.flops}")
    for option, texts in (("--set", arguments.set), *(("--vary", fields) for _, fields in arguments.vary)):
        for text in texts:
            field, equals, _ = text.partition("=")
            if not equals or field in ("train_steps", "seed", "output_dir"):
                allowed = "expected FIELD=VALUE, of another field than train_steps, seed, output_dir"
                parser.error(f"{option} {text!r}: {allowed}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from huggingface_hub.errors import StrictDataclassError

    from ..experiments.recipe_plots import plot_recipes
    from ..experiments.recipes import MAX_SEEDS, compare, markdown_table, read_contender, train
    from ..utils.cli import command_line, user_errors
    from ..utils.files import alone_in, write_json, write_text
    from ..utils.machine import library_versions

    output = Path(arguments.output)
    with user_errors(ValueError, OSError, StrictDataclassError, RuntimeError):
        if len(arguments.seeds) > MAX_SEEDS:
            raise ValueError(f"{len(arguments.seeds)} seeds; allowed: at most {MAX_SEEDS}")
        contenders = [read_contender(path, arguments.set) for path in arguments.recipes]
        for label, fields in arguments.vary:
            contenders.append(read_contender(arguments.recipes[0], arguments.set, fields, label))
        first = contenders[0]
        budget = arguments.flops or first.flops
        folders = {c.name: {seed: output / c.folder / f"seed-{seed}" for seed in arguments.seeds} for c in contenders}
        runs: dict[str, dict] = {contender.name: {} for contender in contenders}
        for number, seed in enumerate(arguments.seeds):
            for contender in contenders:
                steps = contender.steps_for(budget)
                print(f"seed {seed} ({number + 1} of {len(arguments.seeds)}), {contender.name}: {steps:,} steps")
                runs[contender.name][seed] = train(
                    contender, seed, steps, folders[contender.name][seed], arguments.imports
                )
        report = compare(contenders, runs) | {
            "command": command_line("compare-recipes", given(argv)),
            "versions": library_versions(),
        }
        table = markdown_table(report)
        print(f"\n{table}\n")
        logs = {name: [folder / "log.jsonl" for folder in seeds.values()] for name, seeds in folders.items()}
        with alone_in(output, wait=True):  # each run has its folder to itself; the report is of one of the commands
            written = [
                write_json(output / "comparison.json", report),
                write_text(output / "comparison.md", f"{table}\n"),
                plot_recipes(report, logs, output / "plots" / "recipes.png"),
            ]
    print_written(written)
    return 0
