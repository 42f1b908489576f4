"""How time and memory grow with the length, the batch and the depth of a model; with table rows: see puzzle_table.

Full-size models with random weights, in the first of the engines and precisions asked for. Where neither is what grows,
a step has one cycle of one update each, two calls of the stack, and a batch has one puzzle of 97 positions.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from ..utils.flops import flops
from .engines import prepared
from .measure import Group, Line, Skipped
from .settings import Settings, preset_config, random_ids, random_model

LENGTHS = (97, 416, 916, 1936)  # grids of 9x9, 20x20, 30x30; and 44x44, about twice the longest sequence of a task
BATCH_SIZES = (1, 4, 16, 64)
CYCLES = ((1, 1), (1, 6), (3, 6))  # H_cycles, L_cycles
STEPS = (1, 4, 16)
SHALLOW = {"H_cycles": 1, "L_cycles": 1}


def groups(settings: Settings) -> Iterator[Group]:
    shortest = LENGTHS[0]
    kinds: dict[str, list[dict[str, Any]]] = {
        "length": [{"length": length} for length in LENGTHS],
        "batch": [{"batch_size": batch_size} for batch_size in BATCH_SIZES],
        "cycles": [{"H_cycles": H, "L_cycles": L} for H, L in CYCLES],
        "steps": [{"steps": steps} for steps in STEPS],
    }
    for kind, cases in kinds.items():
        lines: list[Line] = []
        skipped: list[Skipped] = []
        for preset in settings.presets:
            for case in cases:
                _add(settings, kind, preset, {"length": shortest, "batch_size": 1, "steps": 1} | case, lines, skipped)
        yield Group(lines, skipped=skipped)


def _add(
    settings: Settings, kind: str, preset: str, case: dict[str, Any], lines: list[Line], skipped: list[Skipped]
) -> None:
    """The line of one case. Its work names kind and preset, so that ratios are to the preset's smallest case."""
    length, batch_size, steps = case["length"], case["batch_size"], case["steps"]
    cycles = SHALLOW | {name: case[name] for name in SHALLOW if name in case}
    config = preset_config(preset, length, **cycles)
    cost = batch_size * steps * flops(config)
    labels = {
        "work": f"{kind}, {preset}",
        "L": length,
        "batch": batch_size,
        "stack calls": steps * config.H_cycles * (config.L_cycles + 1),
    }
    excess = settings.excess(cost)
    if excess is not None:
        skipped.append(Skipped(f"{kind}, {preset}, L {length}, batch {batch_size}", excess))
        return
    model, ids = random_model(config, settings.device), random_ids(config, batch_size, settings.device)
    for dtype, engine, solve in list(prepared(model, settings, skipped))[:1]:
        call = partial(solve, ids, max_steps=steps)
        lines.append(Line({**labels, "dtype": dtype, "engine": engine}, call, cost))
