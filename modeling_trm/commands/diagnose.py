"""See inside a checkpoint: what every supervision step, cycle and update does to the answer and to the latents.

examples:
  trm diagnose --model MODEL --output runs/diagnosis                 the shipped sample
  trm diagnose --model MODEL --max-steps 64 --max-puzzles 32 --output runs/deep
  trm diagnose --model MODEL --data my.parquet --output runs/diagnosis-maze

Entropy of the answers, cells changed, accuracy, halt probability and its calibration, size and effective rank of the
latents, distance to a fixed point, advantage margin and dead steps (arXiv 2511.16886), and warnings of collapse.

Writes OUTPUT/index.html to read (everything inside one file), diagnosis.json, plots/*.png and solving.gif.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from .options import (
    CommandParser,
    add_batch_size,
    add_device,
    add_max_steps,
    add_model,
    add_output,
    add_puzzles,
    load_checkpoint,
    load_chosen_puzzles,
    print_written,
    provenance,
    require_at_least,
)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("diagnose", __doc__)
    add_model(parser)
    add_output(parser, "what is written")
    add_puzzles(parser, max_puzzles=64, tasks=("sudoku", "maze"))
    add_max_steps(parser)
    compute = parser.add_argument_group("compute")
    add_batch_size(compute, 16)
    add_device(compute)
    arguments = parser.parse_args(argv)
    require_at_least(parser, arguments, 1, "max_puzzles", "max_steps", "batch_size")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from ..diagnostics.animation import choose_puzzle, solving_gif
    from ..diagnostics.diagnosis_plots import write_diagnosis_plots
    from ..diagnostics.page import write_page
    from ..diagnostics.report import observe_puzzles, summarise_observation
    from ..utils.cli import user_errors
    from ..utils.files import alone_in, write_json

    with user_errors(OSError, ValueError), alone_in(Path(arguments.output)):
        model, processor = load_checkpoint(arguments)
        puzzles = load_chosen_puzzles(arguments, processor)
        observation = observe_puzzles(model, puzzles, arguments.max_steps, batch_size=arguments.batch_size)
        summary = summarise_observation(observation)
        shown = choose_puzzle(observation)
        report = {
            **provenance("diagnose", argv, puzzles, arguments.split, model.device),
            "model": arguments.model,
            "task": puzzles.task,
            "block_operators": list(model.config.block_operators),
            "H_cycles": model.config.H_cycles,
            "L_cycles": model.config.L_cycles,
            "num_latents": model.config.num_latents,
            "shown_puzzle": puzzles.processor.decode(puzzles.inputs[shown]),
            **summary,
        }
        output = Path(arguments.output)
        pictures = {"solving": solving_gif(observation, puzzles, shown, output / "solving.gif")}
        pictures |= write_diagnosis_plots(output / "plots", summary)
        written = [write_json(output / "diagnosis.json", report)]  # first: by it the page is known to be ours
        written.insert(0, write_page(output / "index.html", report, pictures))
    for warning in summary["warnings"]:
        print(f"WARNING: {warning}")
    print_written([*written, *pictures.values()])
    return 0
