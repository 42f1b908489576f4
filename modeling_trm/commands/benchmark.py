"""Time models, layers and updates side by side and alternating in one run, as JSON and Markdown tables.

examples:
  trm benchmark --output runs/benchmark
  trm benchmark --part all --output runs/benchmark-all
  trm benchmark --part supervision --presets trm-attn --batch-sizes 1 8 64 --max-tflop 10 --output DIR
  trm benchmark --part supervision --presets gated_conv+mlp trm-attn --import my_ops.py --output runs/mine
  trm benchmark --part mamba2-layer --rounds 7 --output runs/benchmark-mamba2
  trm benchmark --part reference --reference ../TinyRecursiveModels --checkpoint runs/sudoku/model \
      --puzzles 1024 --output runs/benchmark-reference
  trm benchmark --part supervision training-step --presets tr-mamba2attn --profile --output runs/profile
  trm benchmark --gpu --output runs/benchmark-gpu

parts:
  peak           largest product of two matrices in float32 and bfloat16; always measured, the others give their share
  supervision    one supervision step of inference of full-size models with random weights
  solving        all 16 supervision steps
  training-step  forward, loss, gradients, optimisers, weight average
  mamba2-layer   the Mamba-2 layer against transformers' and, on CUDA, mamba_ssm's, with the same weights
  ssd            that layer's state-space dual form alone, in PyTorch, in Triton and on CUDA mamba_ssm's
  reference      against a checkout of the public TRM code with the same weights: one step, and with --checkpoint
                 solving puzzles, 16 steps there and with halting here
  reference-training  forward, loss and gradients against the same checkout, with --engines compiled under torch.compile
  growth         time and memory against length, batch and depth
  puzzle-table   the update of a batch of rows in tables of several sizes; the largest by default takes 4 GB

A length is that of the sequence, 16 positions of prefix and the cells: 97 for Sudoku, 916 for Maze and ARC. On a CPU
calls of more than half a TFLOP are listed as skipped (--max-tflop).

Writes OUTPUT/benchmark.json and OUTPUT/benchmark.md after every group of lines, and prints the tables: medians, the
range from the fastest to the slowest round, the ratio to the first line of the same work, FLOP/s (of the matrix
products, not of the rest) and their share of the peak, and the memory a call takes. Where two sides are compared they
are first asked for the same answers; if these differ they are not timed, and the exit code is 1.
"""

import argparse
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .options import CommandParser, add_device, add_import, add_output, given, require_at_least, thread_count

# Names of modeling_trm.benchmarking.run.PARTS and engines.ENGINES, here so that --help need not import PyTorch.
PARTS = (
    "peak", "supervision", "solving", "training-step", "mamba2-layer", "ssd", "reference", "reference-training",
    "growth", "puzzle-table",
)  # fmt: skip
SLOW_PARTS = ("solving", "growth")  # not run unless asked for
ENGINES = ("eager", "packed", "int8", "compiled")
PRESETS = ("trm-attn", "trm-mlp-t", "tr-mamba2attn", "tr-mamba2mlpt")
DTYPES = ("float32", "bfloat16")
PREFIX = 16
CPU_MAX_TFLOP = 0.5
SSD_BACKENDS = ("auto", "torch", "triton", "cuda")
# What a GPU can, in two and a half minutes: training as published for Sudoku. The last group has half a minute to end.
GPU: dict[str, Any] = {
    "part": ["training-step", "ssd"],
    "lengths": [97],
    "batch_sizes": [384],
    "dtype": ["bfloat16"],
    "engines": ["eager", "compiled"],
    "ssd_backends": ["torch", "triton", "cuda"],
    "profile": True,
    "seconds": 120.0,
}


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("benchmark", __doc__)
    add = parser.add_argument
    add_import(parser)
    add_output(parser, "benchmark.json and benchmark.md")
    default: Sequence[str] = [name for name in PARTS if name not in SLOW_PARTS]
    parts = f"see below; all: every one (default: all but {' and '.join(SLOW_PARTS)})"
    add("--part", nargs="+", default=default, choices=("all", *PARTS), metavar="PART", help=parts)
    add("--rounds", type=int, default=3, metavar="N", help="measurements of each line (default: 3)")
    presets = f"presets, or operators as in attention+mlp (default: {' '.join(PRESETS)})"
    add("--presets", nargs="+", default=PRESETS, metavar="NAME", help=presets)
    add("--lengths", type=int, nargs="+", default=(97, 916), metavar="L", help="(default: 97 916)")
    add("--batch-sizes", type=int, nargs="+", default=(1, 8, 64), metavar="B", help="(default: 1 8 64)")
    add("--dtype", nargs="+", default=DTYPES, choices=DTYPES, help="bfloat16: under autocast (default: both)")
    default = ("eager", "packed")
    add("--engines", nargs="+", default=default, choices=ENGINES, help="ways to run a model (default: eager packed)")
    default = ("auto",)
    backends = f"of Mamba-2 in a training step: {' '.join(SSD_BACKENDS)} (default: auto)"
    add("--ssd-backends", nargs="+", default=default, choices=SSD_BACKENDS, metavar="NAME", help=backends)
    add("--max-tflop", type=float, metavar="X", help="skip calls of more 10^12 operations (default: 0.5 on a CPU)")
    rows = (1_000, 10_000, 100_000, 1_000_000)
    add("--rows", type=int, nargs="+", default=rows, metavar="N", help="sizes of tables (default: 10^3 to 10^6)")
    add("--table-batch", type=int, default=768, metavar="N", help="rows of an update (default: 768, as published)")
    add("--reference", type=Path, metavar="DIR", help="checkout of the public TRM code, which is run")
    add("--mamba-ssm", type=Path, metavar="DIR", help="checkout of mamba_ssm, whose Triton kernels are run")
    add("--checkpoint", metavar="DIR", help="trained weights for solving; the sample's test puzzles of its task")
    add("--puzzles", type=int, default=64, metavar="N", help="so many of them (default: 64)")
    add("--at-a-time", type=int, default=32, metavar="N", help="puzzles of a batch that is solved (default: 32)")
    add("--sources", nargs="+", metavar="NAME", help="only puzzles of these sources (default: of all)")
    add("--halt", type=float, default=0.5, metavar="P", help="our halting: at this halt probability (default: 0.5)")
    add_device(parser)
    add("--threads", type=thread_count, metavar="N", help="threads of a CPU (default: PyTorch's choice)")
    add("--profile", action="store_true", help="lines of a model: time by kind of kernel, a trace, operators")
    limit = "begin no group of lines later than so many (default: no limit)"
    add("--seconds", type=float, default=math.inf, metavar="S", help=limit)
    add("--gpu", action="store_true", help=f"other defaults, for a GPU and two and a half minutes: {_as_options(GPU)}")
    arguments = parser.parse_args(argv)
    if arguments.gpu:
        parser.set_defaults(**GPU)
        arguments = parser.parse_args(argv)
    _check(parser, arguments)
    return arguments


def _as_options(defaults: dict[str, Any]) -> str:
    words = []
    for name, value in defaults.items():
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words += map(str, value if isinstance(value, list) else [f"{value:g}"])
    return " ".join(words)


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    if arguments.part == ["all"]:
        arguments.part = list(PARTS)
    elif "all" in arguments.part:
        parser.error(f"--part all stands alone, got {' '.join(arguments.part)}")
    require_at_least(parser, arguments, PREFIX + 1, "lengths")
    require_at_least(parser, arguments, 1, "batch_sizes", "rounds", "rows", "table_batch", "puzzles", "at_a_time")
    if arguments.max_tflop is not None and not arguments.max_tflop > 0:
        parser.error(f"--max-tflop must be above 0, got {arguments.max_tflop:g}")
    if not arguments.seconds > 0:
        parser.error(f"--seconds must be above 0, got {arguments.seconds:g}")
    if "puzzle-table" in arguments.part and min(arguments.rows) < arguments.table_batch:
        parser.error(f"--rows must be at least --table-batch, {arguments.table_batch}, got {min(arguments.rows)}")
    if not 0 < arguments.halt < 1:
        parser.error(f"--halt must be between 0 and 1, got {arguments.halt:g}")
    if arguments.checkpoint is not None and arguments.reference is None:
        parser.error("--checkpoint is compared with the public code: give --reference too")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    import torch

    from ..benchmarking.report import markdown
    from ..benchmarking.run import run_parts
    from ..utils.cli import command_line, user_errors
    from ..utils.files import alone_in, write_json, write_text
    from ..utils.machine import describe_machine, library_versions

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    output = Path(arguments.output)

    def write(report: dict[str, Any]) -> None:
        write_json(output / "benchmark.json", report)
        write_text(output / "benchmark.md", markdown(report))

    with user_errors(OSError, ValueError), alone_in(Path(arguments.output)):
        settings = make_settings(arguments)
        report = {
            "command": command_line("benchmark", given(argv)),
            "date": datetime.now(UTC).date().isoformat(),
            "hardware": describe_machine(settings.device),
            "versions": library_versions(),
        }
        same = run_parts(arguments.part, settings, report, write, output / "profile" if arguments.profile else None)
    print(markdown(report))
    print(f"written: {output / 'benchmark.json'}, {output / 'benchmark.md'}")
    return 0 if same else 1


def make_settings(arguments: argparse.Namespace) -> Any:
    """Raises ValueError for what cannot be used, before anything is measured."""
    from ..benchmarking.reference import load_reference
    from ..benchmarking.settings import Settings
    from ..benchmarking.ssd import THEIR_FILE
    from ..configuration_trm import PRESETS as KNOWN
    from ..operators_trm import OPERATORS
    from ..utils.loading import choose_device

    device = choose_device(arguments.device)
    unknown = [name for name in arguments.presets if name not in KNOWN and not {*name.split("+")} <= {*OPERATORS}]
    if unknown:
        raise ValueError(
            f"--presets: {unknown[0]!r} is unknown; allowed: {', '.join(KNOWN)}, or names of operators with + between "
            f"them: {', '.join(OPERATORS)}"
        )
    if arguments.reference is not None:
        load_reference(arguments.reference)
    if arguments.mamba_ssm is not None and not (arguments.mamba_ssm / THEIR_FILE).is_file():
        raise ValueError(f"--mamba-ssm {arguments.mamba_ssm}: has no {THEIR_FILE}; allowed: a checkout of mamba_ssm")
    default_bound = CPU_MAX_TFLOP if device.type == "cpu" else None
    return Settings(
        device=device,
        presets=arguments.presets,
        lengths=arguments.lengths,
        batch_sizes=arguments.batch_sizes,
        dtypes=arguments.dtype,
        engines=arguments.engines,
        rounds=arguments.rounds,
        max_tflop=default_bound if arguments.max_tflop is None else arguments.max_tflop,
        rows=arguments.rows,
        table_batch=arguments.table_batch,
        reference=arguments.reference,
        checkpoint=arguments.checkpoint,
        puzzles=None if arguments.checkpoint is None else sample_puzzles(arguments),
        at_a_time=arguments.at_a_time,
        halt=arguments.halt,
        ssd_backends=arguments.ssd_backends,
        seconds=arguments.seconds,
        mamba_ssm=arguments.mamba_ssm,
    )


def sample_puzzles(arguments: argparse.Namespace) -> Any:
    """Test puzzles of the checkpoint's task, from the shipped sample."""
    import numpy as np

    from datasets_builders.features import load_puzzles

    from ..evaluation.puzzles import choose_subset
    from ..utils.loading import load_processor

    puzzles = load_puzzles(load_processor(arguments.checkpoint).task, "test")
    known = sorted(set(puzzles.sources.tolist()))
    for name in arguments.sources or ():
        if name not in known:
            raise ValueError(f"--sources {name}: is unknown; allowed: {', '.join(known)}")
    if arguments.sources:
        puzzles = puzzles.select(np.flatnonzero(np.isin(puzzles.sources, arguments.sources)))
    return choose_subset(puzzles, arguments.puzzles)
