"""What happens to a looped Mamba-2 model beyond its training depth, and what keeps it alive: figures, table and plot.

examples:
  trm loop-experiment --output runs/loops
  trm loop-experiment --output runs/loops --arms bare inject inject-norm --seeds 0 1 2 --steps 2000
  trm loop-experiment --output runs/deep --train-loops 8 --loops 128

Each arm is a small pure Mamba-2 model trained on real Sudoku with a few loops (the state fed back to the same stack),
then measured with many more. Arms are named by what is on: "inject" (the input added at every loop, not only the
first), "index" (a rotary phase over the loop's number), "norm" (the state normalised after each loop); "bare" has none.
"every" takes the loss at every loop; "carried" goes on from its own detached state for four training steps, as TRM is
trained; "trm" is TRM's post-norm stack, which normalises anyway.

Writes OUTPUT/loops.json, OUTPUT/loops.md, OUTPUT/plots/loops.png, and OUTPUT/arms/NAME-SEED.json as soon as an arm is
done: the same command goes on after a stop with the arms that are missing.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import CommandParser, add_device, add_output, given, print_written, thread_count, valid_seed

if TYPE_CHECKING:
    from ..experiments.loop_training import Data, Settings

STEPS, BATCH = 600, 16


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("loop-experiment", __doc__)
    add_output(parser, "loops.json, loops.md, arms/, plots/")
    parser.add_argument("--arms", nargs="+", metavar="NAME", help="(default: all)")
    parser.add_argument("--seeds", type=valid_seed, nargs="+", default=[0, 1], metavar="N", help="(default: 0 1)")
    parser.add_argument("--train-loops", type=int, default=4, metavar="N", help="loops in training (default: 4)")
    parser.add_argument("--loops", type=int, default=64, metavar="N", help="loops measured (default: 64)")
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N", help=f"of training (default: {STEPS})")
    parser.add_argument("--batch-size", type=int, default=BATCH, metavar="N", help=f"(default: {BATCH})")
    parser.add_argument("--test-puzzles", type=int, default=256, metavar="N", help="(default: 256)")
    parser.add_argument("--source", default="gen_easy", help="of the shipped Sudoku sample (default: gen_easy)")
    parser.add_argument(
        "--reveal", type=float, default=0.9, metavar="X", help="largest share of blanks filled in (default: 0.9)"
    )
    parser.add_argument("--learning-rate", type=float, default=0.005, metavar="X", help="of Muon (default: 0.005)")
    parser.add_argument("--threads", type=thread_count, metavar="N", help="CPU threads (default: PyTorch's choice)")
    add_device(parser)
    arguments = parser.parse_args(argv)
    for name in ("seeds", "arms"):
        values = vars(arguments)[name] or []
        if len(set(values)) < len(values):
            parser.error(f"--{name} names one twice: {' '.join(map(str, values))}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    import torch

    from ..experiments.loop_report import markdown_tables, plot_loops
    from ..experiments.loop_training import Settings, open_data
    from ..utils.cli import command_line, user_errors
    from ..utils.files import alone_in, write_json, write_text
    from ..utils.loading import choose_device
    from ..utils.machine import describe_machine, library_versions

    with user_errors(OSError, ValueError), alone_in(Path(arguments.output)):
        shared = ("train_loops", "loops", "steps", "batch_size", "test_puzzles", "source", "reveal", "learning_rate")
        settings = Settings(**{name: vars(arguments)[name] for name in shared})
        if arguments.threads is not None:
            torch.set_num_threads(arguments.threads)
        device = choose_device(arguments.device)
        data = open_data(settings)
        output = Path(arguments.output)
        results = _run_arms(_chosen(arguments.arms), arguments.seeds, settings, data, device, output / "arms")
        report = {
            "command": command_line("loop-experiment", given(argv)),
            "hardware": describe_machine(device),
            "versions": library_versions(),
            "results": results,
        }
        tables = markdown_tables(results)
        print(tables)
        written = [
            write_json(output / "loops.json", report),
            write_text(output / "loops.md", tables),
            plot_loops(results, output / "plots" / "loops.png"),
        ]
    print_written(written)
    return 0


def _chosen(names: list[str] | None) -> list[str]:
    from ..experiments.loops import ARMS

    unknown = [name for name in names or () if name not in ARMS]
    if unknown:
        raise ValueError(f"--arms names {unknown[0]!r}; allowed: {', '.join(ARMS)}")
    return [name for name in ARMS if names is None or name in names]


def _run_arms(
    names: list[str], seeds: list[int], settings: "Settings", data: "Data", device: Any, folder: Path
) -> list[dict[str, Any]]:
    """The results in the order of the arms; they are run seed by seed, so that a stop leaves whole comparisons."""
    from ..experiments.loop_report import verdict
    from ..experiments.loop_run import run_arm
    from ..experiments.loops import ARMS
    from ..utils.files import write_json

    files = {(name, seed): folder / f"{name}-{seed}.json" for seed in seeds for name in names}
    done = {key: _finished(file, settings, data) for key, file in files.items() if file.is_file()}
    for (name, seed), file in files.items():
        if (name, seed) not in done:
            result = run_arm(name, ARMS[name], seed, settings, data, device)
            done[name, seed] = result | {"verdict": verdict(result)}
            write_json(file, done[name, seed])
    return [done[name, seed] for name in names for seed in seeds]


def _finished(file: Path, settings: "Settings", data: "Data") -> dict[str, Any]:
    """The result of an earlier run. Raises ValueError when it is of another experiment."""
    from ..utils.reading import read_json

    result = read_json(file)
    if not {"settings", "fingerprints", "verdict"} <= result.keys():
        raise ValueError(f"{file}: is no result of an arm; remove it, or give another --output")
    before, now = result["settings"] | result["fingerprints"], vars(settings) | data.fingerprints
    for name, value in now.items():
        if before.get(name) != value:
            raise ValueError(f"{file} was run with {name}={before.get(name)!r}, not {value!r}; give another --output")
    return result
