"""Time the presets side by side: one supervision step of inference and one training step, alternating in one run.

examples:
  python scripts/benchmark.py --output runs/benchmark
  python scripts/benchmark.py --task maze --batch-size 1 --rounds 3 --output runs/benchmark-maze

Full-size models with random weights. Writes OUTPUT/benchmark.json and prints a Markdown table of medians, with the
range from the fastest to the slowest round and the ratio to trm-attn.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SIZES = {"sudoku": (11, 81, 6), "maze": (6, 900, 4)}  # vocabulary, cells, L cycles as published
REFERENCE = "trm-attn"


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    summary, _, epilog = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for benchmark.json")
    parser.add_argument("--task", default="sudoku", choices=SIZES, help="size of the grid (default: sudoku)")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="puzzles at a time (default: 8)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="measurements of each (default: 5)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="bfloat16: under autocast")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto, the GPU where there is one)")
    arguments = parser.parse_args(argv)
    for name in ("batch_size", "rounds"):
        if vars(arguments)[name] < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {vars(arguments)[name]}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from modeling_trm.evaluation.cli import command_line, user_errors
    from modeling_trm.evaluation.files import write_json
    from modeling_trm.evaluation.loading import choose_device
    from modeling_trm.evaluation.machine import describe_machine, library_versions

    with user_errors(OSError, ValueError):
        device = choose_device(arguments.device)
    seconds = measure(arguments, device)
    report = {
        "command": command_line("benchmark.py", sys.argv[1:] if argv is None else argv),
        "hardware": describe_machine(device),
        "versions": library_versions(),
        "seconds": seconds,
    }
    print(f"{report['hardware']}, {arguments.task}, batch {arguments.batch_size}, {arguments.dtype}\n")
    print(markdown_table(seconds))
    with user_errors(OSError):
        print(f"\nwritten: {write_json(Path(arguments.output) / 'benchmark.json', report)}")
    return 0


def measure(arguments: argparse.Namespace, device: Any) -> dict[str, dict[str, list[float]]]:
    """{preset: {"inference": seconds of each round, "training": ...}}; the presets take turns within a round."""
    import torch
    from tqdm.auto import tqdm

    from modeling_trm import PRESETS, TRMConfig, TRMForGridReasoning

    vocab_size, seq_len, L_cycles = SIZES[arguments.task]
    torch.manual_seed(0)
    input_ids = torch.randint(1, vocab_size, (arguments.batch_size, seq_len), device=device)
    work: dict[str, dict[str, Callable[[], None]]] = {}
    for preset in PRESETS:
        config = TRMConfig.from_preset(preset, vocab_size=vocab_size, seq_len=seq_len, L_cycles=L_cycles)
        model = TRMForGridReasoning(config).to(device)
        precision = torch.autocast(device.type, torch.bfloat16, enabled=arguments.dtype == "bfloat16")
        work[preset] = {
            "inference": inference(model, input_ids, precision),
            "training": training(model, input_ids, precision),
        }
    seconds: dict[str, dict[str, list[float]]] = {
        preset: {kind: [] for kind in kinds} for preset, kinds in work.items()
    }
    with tqdm(total=(arguments.rounds + 1) * 2 * len(work), desc="measuring") as bar:
        for round_number in range(arguments.rounds + 1):
            for preset, kinds in work.items():
                for kind, function in kinds.items():
                    taken = timed(function, device)
                    if round_number:  # the first round warms up
                        seconds[preset][kind].append(taken)
                    bar.update()
    return seconds


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


def timed(function: Callable[[], None], device: Any) -> float:
    import torch

    started = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def markdown_table(seconds: dict[str, dict[str, list[float]]]) -> str:
    from statistics import median

    lines = ["| preset | inference step, ms | ratio | training step, ms | ratio |", "|---|---:|---:|---:|---:|"]
    for preset, kinds in seconds.items():
        cells = [preset]
        for kind, values in kinds.items():
            ratio = median(values) / median(seconds[REFERENCE][kind])
            low, middle, high = (1000 * f(values) for f in (min, median, max))
            cells += [f"{middle:.0f} ({low:.0f} to {high:.0f})", f"{ratio:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
