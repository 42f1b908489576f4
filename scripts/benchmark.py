"""Time the presets, or the update of puzzle tables of several sizes, side by side and alternating in one run.

examples:
  python scripts/benchmark.py --output runs/benchmark
  python scripts/benchmark.py --task maze --batch-size 1 --rounds 3 --output runs/benchmark-maze
  python scripts/benchmark.py --part puzzle-table --rounds 21 --output runs/benchmark-table

presets: one supervision step of inference and one training step of full-size models with random weights.
puzzle-table: forward, gradient and sign-SGD step of a batch of distinct rows, 512 channels, the mean of 20 such updates
a round; as a contrast one update with a dense gradient, over the whole table. The largest table needs 4 GB.

Writes OUTPUT/benchmark.json and prints a Markdown table of medians, with the range from the fastest to the slowest
round and the ratio to the first row.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

SIZES = {"sudoku": (11, 81, 6), "maze": (6, 900, 4)}  # vocabulary, cells, L cycles as published
BATCH_SIZES = {"presets": 8, "puzzle-table": 768}  # the latter as published
ROWS = (1_000, 10_000, 100_000, 1_000_000)
CHANNELS = 512
SPARSE_UPDATES = 20  # timed together: one alone takes a millisecond or two
DECIMALS = {"presets": 0, "puzzle-table": 2}
Work = dict[str, dict[str, tuple[Callable[[], None], int]]]  # line -> kind -> what is timed, and how often in a round
Seconds = dict[str, dict[str, list[float]]]  # line -> kind -> time of one call in each round


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    summary, _, epilog = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for benchmark.json")
    parser.add_argument("--part", default="presets", choices=BATCH_SIZES, help="what is timed (default: presets)")
    parser.add_argument("--task", default="sudoku", choices=SIZES, help="presets: size of the grid (default: sudoku)")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=ROWS, metavar="N", help="puzzle-table: sizes (default: 10^3 to 10^6)"
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="puzzles at a time (default: 8; puzzle-table: 768)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="measurements of each (default: 5)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="bfloat16: under autocast")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto, the GPU where there is one)")
    arguments = parser.parse_args(argv)
    if arguments.batch_size is None:
        arguments.batch_size = BATCH_SIZES[arguments.part]
    for name in ("batch_size", "rounds"):
        if vars(arguments)[name] < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {vars(arguments)[name]}")
    if arguments.part == "puzzle-table" and min(arguments.rows) < arguments.batch_size:
        parser.error(f"--rows must be at least the batch size, {arguments.batch_size}, got {min(arguments.rows)}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from modeling_trm.evaluation.cli import command_line, user_errors
    from modeling_trm.evaluation.files import write_json
    from modeling_trm.evaluation.loading import choose_device
    from modeling_trm.evaluation.machine import describe_machine, library_versions

    with user_errors(OSError, ValueError):
        device = choose_device(arguments.device)
    parts = {"presets": preset_work, "puzzle-table": table_work}
    seconds = measure(parts[arguments.part](arguments, device), arguments.rounds, device)
    report = {
        "command": command_line("benchmark.py", sys.argv[1:] if argv is None else argv),
        "part": arguments.part,
        "hardware": describe_machine(device),
        "versions": library_versions(),
        "seconds": seconds,
    }
    what = arguments.task if arguments.part == "presets" else f"puzzle table of {CHANNELS} channels"
    print(f"{report['hardware']}, {what}, batch {arguments.batch_size}, {arguments.dtype}\n")
    print(markdown_table(arguments.part, seconds))
    with user_errors(OSError):
        print(f"\nwritten: {write_json(Path(arguments.output) / 'benchmark.json', report)}")
    return 0


def measure(work: Work, rounds: int, device: Any) -> Seconds:
    """Seconds of each round; everything takes turns within a round, so that a busy moment hits all alike."""
    from tqdm.auto import tqdm

    seconds: Seconds = {name: {kind: [] for kind in kinds} for name, kinds in work.items()}
    with tqdm(total=(rounds + 1) * sum(map(len, work.values())), desc="measuring") as bar:
        for round_number in range(rounds + 1):
            for name, kinds in work.items():
                for kind, (function, calls) in kinds.items():
                    taken = timed(function, calls, device)
                    if round_number:  # the first round warms up
                        seconds[name][kind].append(taken)
                    bar.update()
    return seconds


def preset_work(arguments: argparse.Namespace, device: Any) -> Work:
    import torch

    from modeling_trm import PRESETS, TRMConfig, TRMForGridReasoning

    vocab_size, seq_len, L_cycles = SIZES[arguments.task]
    torch.manual_seed(0)
    input_ids = torch.randint(1, vocab_size, (arguments.batch_size, seq_len), device=device)
    work: Work = {}
    for preset in PRESETS:
        config = TRMConfig.from_preset(preset, vocab_size=vocab_size, seq_len=seq_len, L_cycles=L_cycles)
        model = TRMForGridReasoning(config).to(device)
        precision = torch.autocast(device.type, torch.bfloat16, enabled=arguments.dtype == "bfloat16")
        work[preset] = {
            "inference step": (inference(model, input_ids, precision), 1),
            "training step": (training(model, input_ids, precision), 1),
        }
    return work


def inference(model: Any, input_ids: Any, precision: Any) -> Callable[[], None]:
    """One supervision step without gradient."""
    import torch

    def run() -> None:
        with torch.no_grad(), precision:
            model(input_ids)

    return run


def training(model: Any, input_ids: Any, precision: Any) -> Callable[[], None]:
    """One supervision step with loss and gradients, without the optimiser."""

    def run() -> None:
        with precision:
            loss = model(input_ids, labels=input_ids).loss
        loss.backward()
        model.zero_grad(set_to_none=True)

    return run


def table_work(arguments: argparse.Namespace, device: Any) -> Work:
    import torch

    from modeling_trm.puzzle_table_trm import PuzzleTable

    torch.manual_seed(0)
    work: Work = {}
    for rows in sorted(set(arguments.rows)):
        table = PuzzleTable(rows, CHANNELS).to(device)
        # Other rows every time, which for a large table are not in the processor's cache; as many for every table.
        draws = (SPARSE_UPDATES + 1) * (arguments.rounds + 1)
        batches = iter([torch.randperm(rows, device=device)[: arguments.batch_size].clone() for _ in range(draws)])
        gradient = torch.randn(arguments.batch_size, CHANNELS, device=device)
        work[f"{rows:,} rows"] = {
            "sparse update": (sparse_update(table, batches, gradient), SPARSE_UPDATES),
            "dense update": (dense_update(table, batches, gradient), 1),
        }
    return work


def sparse_update(table: Any, batches: Iterator[Any], gradient: Any) -> Callable[[], None]:
    """As in training: the batch's rows, their sparse gradient, and the step of sign-SGD."""
    from modeling_trm.training.optimisers import SignSGD

    optimiser = SignSGD([table.weight], lr=1e-4, weight_decay=0.1)

    def run() -> None:
        table(next(batches)).backward(gradient)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return run


def dense_update(table: Any, batches: Iterator[Any], gradient: Any) -> Callable[[], None]:
    """The same sign update by a gradient as large as the table."""
    import torch

    def run() -> None:
        torch.nn.functional.embedding(next(batches), table.weight, sparse=False).backward(gradient)
        with torch.no_grad():
            table.weight.mul_(1 - 1e-4 * 0.1).add_(table.weight.grad.sign_(), alpha=-1e-4)
        table.weight.grad = None

    return run


def timed(function: Callable[[], None], calls: int, device: Any) -> float:
    """Seconds a call."""
    import torch

    started = time.perf_counter()
    for _ in range(calls):
        function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / calls


def markdown_table(part: str, seconds: Seconds) -> str:
    reference = next(iter(seconds.values()))
    columns = [column for kind in reference for column in (f"{kind}, ms", "ratio")]
    lines = [f"| {' | '.join([part, *columns])} |", f"|---|{'---:|' * len(columns)}"]
    for name, kinds in seconds.items():
        cells = [name]
        for kind, values in kinds.items():
            low, middle, high = (f"{1000 * f(values):.{DECIMALS[part]}f}" for f in (min, median, max))
            cells += [f"{middle} ({low} to {high})", f"{median(values) / median(reference[kind]):.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
