"""Answers with a certificate: how many are right, wrong, or withheld, and a threshold with a stated error.

examples:
  trm certify --model MODEL --views 8 --max-steps 32 --output runs/certified
  trm certify --model MODEL --num-trajectories 4 --random-start --output runs/certified
  trm certify --model MODEL --max-error 0.01 0.001 --output runs/certified
  trm certify --model MODEL --data test.csv --calibrate-on validation.csv --max-error 0.01 --output runs/mine

An answer is given where it has a certificate, and withheld where it has none: the puzzle's own rules (Sudoku, mazes),
or, with --max-error, a halt probability above a threshold. The threshold is calibrated on other puzzles, so that the
error among the answers given is at most --max-error, with 95 % confidence, for puzzles of their kind. Views and
trajectories are attempts in turn. `trm solve --certificate rules` (or the threshold that is printed) answers so.

Writes OUTPUT/certificates.json and OUTPUT/plots/risk_coverage.png.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import (
    CommandParser,
    add_compute,
    add_max_steps,
    add_model,
    add_output,
    add_puzzles,
    add_views,
    autocast,
    load_checkpoint,
    load_chosen_puzzles,
    print_written,
    provenance,
    require_at_least,
)
from .search_options import add_halt_option, add_search_options, check_reasoning, probability

if TYPE_CHECKING:
    from ..evaluation.certificates import AttemptRecords


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("certify", __doc__)
    add_model(parser)
    add_output(parser, "certificates.json and plots/")
    add_puzzles(parser, max_puzzles=None, tasks=("sudoku", "maze"))
    parser.add_argument(
        "--calibrate-on",
        metavar="DATA",
        help="validation puzzles that the threshold is chosen on, as --data (default: those of --data)",
    )
    parser.add_argument("--max-calibration", type=int, metavar="N", help="at most N of them (default: all)")
    parser.add_argument(
        "--max-error",
        type=probability,
        nargs="+",
        default=(),
        metavar="E",
        help="of the answers given: for each a threshold of the halt probability",
    )
    add_max_steps(parser)
    add_halt_option(parser)
    add_views(parser, "1")
    add_compute(parser)
    add_search_options(parser)
    arguments = parser.parse_args(argv)
    require_at_least(parser, arguments, 1, "max_puzzles", "max_calibration", "batch_size")
    if not arguments.max_error and (arguments.calibrate_on or arguments.max_calibration):
        parser.error("--calibrate-on and --max-calibration are for --max-error")
    arguments.reasoning = check_reasoning(parser, arguments)
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from ..evaluation.certificates import outcome, record_attempts, risk_coverage
    from ..evaluation.engine import computed_with
    from ..evaluation.plots import risk_coverage_curve
    from ..utils.cli import user_errors
    from ..utils.files import alone_in, write_json
    from ..verifiers_trm import verifier_for

    with user_errors(OSError, ValueError), alone_in(Path(arguments.output)):
        model, processor = load_checkpoint(arguments)
        puzzles = load_chosen_puzzles(arguments, processor)
        others = load_calibration(arguments, processor, puzzles) if arguments.max_error else None
        verifier = verifier_for(puzzles.task, puzzles.processor.grid_shape)
        how = {"verifier": verifier, "seed": arguments.seed, "batch_size": arguments.batch_size}
        with autocast(arguments, model.device):
            calibration = None if others is None else record_attempts(model, others, arguments.reasoning, **how)
            records = record_attempts(model, puzzles, arguments.reasoning, **how)
            computed = computed_with(model, arguments.engine)
        rows = []
        if records.valid is not None:
            rows.append({"name": "rules", "certificate": "rules", **outcome(records, records.valid)})
        if calibration is not None:
            rows += [threshold_row(records, calibration, max_error) for max_error in arguments.max_error]
        report = {
            **provenance("certify", argv, puzzles, arguments.split, model.device),
            "model": arguments.model,
            "count": len(records),
            "calibrated_on": None if others is None else {"dataset": others.origin, "count": len(others)},
            "seed": arguments.seed,
            **computed,
            "first_attempt_right": float(records.right[:, 0].mean()),
            "certificates": rows,
            "risk_coverage": risk_coverage(records),
        }
        print(markdown_table(rows))
        output = Path(arguments.output)
        title = f"{puzzles.task.capitalize()}: {len(records):,} puzzles, answers with a certificate"
        picture = risk_coverage_curve(report["risk_coverage"], rows, output / "plots" / "risk_coverage.png", title)
        written = [write_json(output / "certificates.json", report), picture]
    print()
    print_written(written)
    return 0


def load_calibration(arguments: argparse.Namespace, processor: Any, reported: Any) -> Any:
    """The puzzles of --calibrate-on, or of the validation split; without those that are reported on, which is said.

    Raises:
        ValueError: none is left.
    """
    if arguments.calibrate_on is None and arguments.split == "validation":
        raise ValueError("--split validation is what the threshold is chosen on: give --calibrate-on other puzzles")
    data = arguments.data if arguments.calibrate_on is None else arguments.calibrate_on
    changed = {"data": data, "split": "validation", "max_puzzles": arguments.max_calibration}
    puzzles = load_chosen_puzzles(argparse.Namespace(**{**vars(arguments), **changed}), processor)
    same = puzzles.is_among(reported.inputs)
    if same.all():
        raise ValueError(f"{puzzles.origin}: all puzzles are reported on; give --calibrate-on others for the threshold")
    if same.any():
        print(
            f"note: {same.sum():,} of {len(puzzles):,} puzzles are reported on: no threshold from them", file=sys.stderr
        )
    return puzzles.select(~same)


def threshold_row(records: "AttemptRecords", calibration: "AttemptRecords", max_error: float) -> dict[str, Any]:
    """name, certificate (the threshold, None where the calibration shows none, and then why), and its outcome."""
    import math

    from ..evaluation.certificates import calibrate, certain_above, fewest_answers, outcome

    name = f"halt probability, error at most {100 * max_error:g} %"
    threshold = calibrate(calibration, max_error)
    if threshold is None:
        why = (
            f"no threshold: {len(calibration):,} puzzles show none with such an error; it takes at least "
            f"{fewest_answers(max_error):,} answers, all of them right"
        )
        nothing = dict.fromkeys(("right", "wrong", "abstained", "error"))
        return {"name": name, "certificate": None, "why": why, **nothing}
    found = outcome(records, certain_above(records, math.log(threshold / (1 - threshold))))
    return {"name": name, "certificate": threshold, **found}


def markdown_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| certificate | right | wrong | not sure | error of the answers given | attempts |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        if row["right"] is None:
            lines.append(f"| {row['name']} | {row['why']} | | | | |")
            continue
        value = "" if row["certificate"] == "rules" else f": above {row['certificate']:.6g}"
        shares = " | ".join(_share(row[name]) for name in ("right", "wrong", "abstained"))
        error = "no answers" if row["error"] is None else _share(row["error"])
        lines.append(f"| {row['name']}{value} | {shares} | {error} | {row['attempts']:.2f} |")
    return "\n".join(lines)


def _share(part: dict[str, Any]) -> str:
    low, high = (100 * bound for bound in part["ci95"])
    return f"{100 * part['share']:.2f} % ({low:.2f} to {high:.2f})"
