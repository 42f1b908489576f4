"""Run parts one after the other, each group of lines as it comes, and keep a report that is whole at any moment."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from . import growth, mamba2_layer, peak, puzzle_table, reference, reference_training, ssd, supervision, training_step
from .measure import Group, Line, Measured, Skipped, describe
from .memory import METHODS
from .profiling import profile_line
from .settings import Settings

PEAK = "peak"  # always measured first: the others give their share of it
PARTS: dict[str, Callable[[Settings], Iterator[Group]]] = {
    PEAK: peak.groups,
    "supervision": supervision.step_groups,
    "solving": supervision.solving_groups,
    "training-step": training_step.groups,
    "mamba2-layer": mamba2_layer.groups,
    "ssd": ssd.groups,
    "reference": reference.groups,
    "reference-training": reference_training.groups,
    "growth": growth.groups,
    "puzzle-table": puzzle_table.groups,
}


def run_parts(
    names: Sequence[str],
    settings: Settings,
    report: dict[str, Any],
    write: Callable[[dict[str, Any]], None],
    profiles: Path | None = None,
) -> bool:
    """Fill the report and write it after every group. True unless some two sides gave different answers.

    Args:
        profiles: folder for a trace of the lines that a part marks so; None for none.
    """
    ends = time.monotonic() + settings.seconds
    spent = f"--seconds {settings.seconds:g} are spent"
    report |= {
        "peak_flop_per_second": {},
        "memory": METHODS.get(settings.device.type, "not measured"),
        "parts": {},
        "finished": False,
    }
    for name in dict.fromkeys((PEAK, *names)):
        part = Measured()
        report["parts"][name] = vars(part)
        if time.monotonic() > ends:
            part.skipped.append(vars(Skipped("the whole part", spent)))
            continue
        for group in PARTS[name](settings):
            if time.monotonic() > ends:
                left = [Skipped(describe(line.labels), spent) for line in group.lines]
                group = Group(skipped=[*group.skipped, *left])
            rounds = settings.rounds if group.rounds is None else group.rounds
            measured = part.add(group, rounds, settings.device, report["peak_flop_per_second"], name)
            if profiles is not None:
                _profile(group.lines, measured, settings.device, profiles / name)
            if name == PEAK:
                report["peak_flop_per_second"] = peak.peaks(part.lines)
            write(report)
            if "compiled" in settings.engines:
                torch._dynamo.reset()  # frees what was compiled for models that are gone
    report["finished"] = True
    write(report)
    return all(check["same"] for part in report["parts"].values() for check in part["checks"])


def _profile(lines: Sequence[Line], measured: list[dict[str, Any]], device: torch.device, folder: Path) -> None:
    """Profile each line that asks for it; none if its group was not measured."""
    for line, figures in zip(lines, measured):
        if line.profile:
            figures["kinds_ms"] = profile_line(line, device, folder)
