"""See inside a checkpoint: what every supervision step, cycle and update does to the answer and to the latents.

examples:
  python scripts/diagnose.py --model DIR --task sudoku --output runs/diagnosis                 the shipped sample
  python scripts/diagnose.py --model DIR --task sudoku --max-steps 64 --max-puzzles 32 --output runs/deep
  python scripts/diagnose.py --model DIR --task maze --data my.parquet --output runs/diagnosis-maze

Entropy of the answers, cells changed, accuracy, halt probability and its calibration, size and effective rank of the
latents, distance to a fixed point, advantage margin and dead steps (arXiv 2511.16886), and warnings of collapse.

Writes OUTPUT/index.html to read (everything inside one file), diagnosis.json, plots/*.png and solving.gif.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    summary, _, epilog = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="folder of a checkpoint, or its id on the Hub")
    parser.add_argument("--task", required=True, choices=("sudoku", "maze"))
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for what is written")
    parser.add_argument("--data", metavar="DIR_OR_FILE", help="csv, parquet or folder (default: the shipped sample)")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"), help="(default: test)")
    parser.add_argument("--max-puzzles", type=int, default=64, metavar="N", help="(default: 64)")
    parser.add_argument(
        "--max-steps", type=int, metavar="N", help="supervision steps (default: the model's halt_max_steps)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of --max-puzzles (default: 0)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="puzzles at a time (default: 16)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto, the GPU where there is one)")
    arguments = parser.parse_args(argv)
    for name in ("max_puzzles", "max_steps", "batch_size"):
        value = vars(arguments)[name]
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from datasets_builders.features import load_puzzles
    from modeling_trm.diagnostics.animation import choose_puzzle, solving_gif
    from modeling_trm.diagnostics.diagnosis_plots import write_diagnosis_plots
    from modeling_trm.diagnostics.page import write_page
    from modeling_trm.diagnostics.report import observe_puzzles, summarise_observation
    from modeling_trm.evaluation.runner import choose_subset
    from modeling_trm.utils.cli import command_line, user_errors
    from modeling_trm.utils.files import write_json
    from modeling_trm.utils.loading import choose_device, load_model
    from modeling_trm.utils.machine import describe_machine, library_versions

    with user_errors(OSError, ValueError):
        device = choose_device(arguments.device)
        model = load_model(arguments.model, device)
        where = (
            {}
            if arguments.data is None
            else {"data_dir" if Path(arguments.data).is_dir() else "data_files": arguments.data}
        )
        puzzles = load_puzzles(arguments.task, arguments.split, **where)
        puzzles = choose_subset(puzzles, arguments.max_puzzles, arguments.seed)
        observation = observe_puzzles(model, puzzles, arguments.max_steps, batch_size=arguments.batch_size)
        summary = summarise_observation(observation)
        shown = choose_puzzle(observation)
        report = {
            "command": command_line("diagnose.py", sys.argv[1:] if argv is None else argv),
            "model": arguments.model,
            "task": arguments.task,
            "dataset": puzzles.origin,
            "split": arguments.split,
            "fingerprint": puzzles.fingerprint,
            "block_operators": list(model.config.block_operators),
            "H_cycles": model.config.H_cycles,
            "L_cycles": model.config.L_cycles,
            "num_latents": model.config.num_latents,
            "hardware": describe_machine(device),
            "versions": library_versions(),
            "shown_puzzle": puzzles.processor.decode(puzzles.inputs[shown]),
            **summary,
        }
        output = Path(arguments.output)
        pictures = {"solving": solving_gif(observation, puzzles, shown, output / "solving.gif")}
        pictures |= write_diagnosis_plots(output / "plots", summary)
        written = [write_page(output / "index.html", report, pictures), write_json(output / "diagnosis.json", report)]
    for warning in summary["warnings"]:
        print(f"WARNING: {warning}")
    print("\n".join(["written:", *(f"  {path}" for path in (*written, *pictures.values()))]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
