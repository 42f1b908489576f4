"""Inference of full-size models with random weights: one supervision step, and all of a solution, for each engine.

Both go through `solve`, which every engine has; nothing halts, so that all engines do the same work.
"""

from collections.abc import Callable, Iterator
from functools import partial

from torch import Tensor

from ..utils.flops import flops
from .engines import Solve, prepared
from .measure import Check, Group, Line, Skipped
from .settings import PREFIX, Settings, preset_config, random_ids, random_model

ONE_STEP = "one step"
# Of the cells of a puzzle, in float32: engines may answer otherwise where two tokens are about as likely.
DIFFERENT_CELLS = 0.03


def step_groups(settings: Settings) -> Iterator[Group]:
    """One supervision step at each length and batch size."""
    return _groups(settings, lambda _: 1)


def solving_groups(settings: Settings) -> Iterator[Group]:
    """All supervision steps of the configuration, 16."""
    return _groups(settings, lambda halt_max_steps: halt_max_steps)


def _groups(settings: Settings, steps_of: Callable[[int], int]) -> Iterator[Group]:
    for length in settings.lengths:
        for batch_size in settings.batch_sizes:
            lines: list[Line] = []
            checks: list[Check] = []
            skipped: list[Skipped] = []
            for preset in settings.presets:
                config = preset_config(preset, length)
                steps = steps_of(config.halt_max_steps)
                work = ONE_STEP if steps == 1 else f"{steps} steps"
                labels = {"work": work, "preset": preset, "L": length, "batch": batch_size}
                cost = batch_size * steps * flops(config)
                excess = settings.excess(cost)
                if excess is not None:
                    skipped.append(Skipped(f"{preset}, {work}, L {length}, batch {batch_size}", excess))
                    continue
                model, ids = random_model(config, settings.device), random_ids(config, batch_size, settings.device)
                solvers = list(prepared(model, settings, skipped))
                if steps == 1:
                    checks += _checks(preset, solvers, ids[:1])
                for dtype, engine, solve in solvers:
                    call = partial(solve, ids, max_steps=steps)
                    named = {**labels, "dtype": dtype, "engine": engine}
                    lines.append(Line(named, call, cost, profile=steps == 1))
            yield Group(lines, checks, skipped)


def _checks(preset: str, solvers: list[tuple[str, str, Solve]], ids_1L: Tensor) -> Iterator[Check]:
    """The answers of the engines in float32 against those of the first; in bfloat16 random weights amplify rounding."""
    exact = [(name, solve(ids_1L, max_steps=1).answers) for dtype, name, solve in solvers if dtype == "float32"]
    for name, answers in exact[1:]:
        share = float((answers != exact[0][1]).float().mean())
        what = f"{preset}, L {ids_1L.shape[1] + PREFIX}, engine {name} and {exact[0][0]}: share of cells that differ"
        yield Check(what, share, DIFFERENT_CELLS)
