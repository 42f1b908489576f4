"""Recipes compared at equal cost: the same training FLOPs, the same test puzzles, several seeds.

Every recipe trains for as many steps as the budget buys it, so that its schedules end with the budget, and is judged
by its exact answers twice, after a number of forward passes of the stack that all of them reach and at its own last
supervision step, and there also by the cells that are right, which still differ where nothing is solved. FLOPs:
utils/flops.py. Intervals are Student's over the seeds, differences are taken seed by seed.
"""

import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ..configuration_trm import TRMConfig
from ..training.arguments import Recipe, parse_recipe
from ..training.data import RunData, open_data
from ..training.recipes import find_recipe
from ..training.resuming import operators_fact
from ..utils.flops import flops
from ..utils.reading import read_json

# Student's t at 97.5 %, by degrees of freedom from 1.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
MAX_SEEDS = len(T_975) + 1
ALIKE = 1e-9  # what rounding leaves between differences that are the same
LAST = "at its last step"
MEASURES = ("at_equal_passes", "at_last_step", "cells")


@dataclass(frozen=True)
class Contender:
    """A recipe and what it costs.

    Args:
        overrides: on top of the file, as on the command line. variation: those that make it another contender than the
            file itself, "FIELD=VALUE" each. label: what reports call it.
    """

    path: Path
    recipe: Recipe
    config: TRMConfig
    overrides: tuple[str, ...]
    variation: tuple[str, ...]
    label: str
    data: RunData

    @property
    def name(self) -> str:
        return self.label or self._fields

    @property
    def folder(self) -> str:
        """What it is, whatever it is called, as the name of a folder on every system."""
        return "_".join(re.findall(r"[\w.=-]+", self._fields))

    @property
    def _fields(self) -> str:
        return ", ".join(self.variation) or self.path.stem

    @property
    def flops_a_step(self) -> float:
        """Of an optimiser step, on average over the run."""
        average, start = 0.0, 0.0
        for end, cycles in sorted(self.recipe.optimisation.depth_stages().items()):
            average += (end - start) * self.data.step_flops(self.config, cycles)
            start = end
        return average + (1 - start) * self.data.step_flops(self.config)

    @property
    def flops(self) -> float:
        """Of the run that the recipe describes. Raises ValueError when it says minutes instead of steps."""
        if self.recipe.optimisation.train_steps is None:
            raise ValueError(f"{self.path} gives train_minutes, not train_steps: say how many FLOPs are to be spent")
        return self.recipe.optimisation.train_steps * self.flops_a_step

    def steps_for(self, flops: float) -> int:
        return max(1, round(flops / self.flops_a_step))

    @property
    def passes_a_step(self) -> int:
        """Applications of the stack in a supervision step."""
        return self.config.H_cycles * (self.config.L_cycles + (self.config.num_latents == 2))


def read_contender(path: str, assignments: Sequence[str], variation: Sequence[str] = (), label: str = "") -> Contender:
    """A recipe with fields of its own, "FIELD=VALUE" each.

    Raises:
        ValueError, OSError: a recipe that cannot be trained, naming the field or file.
    """
    parts = [text.partition("=") for text in (*assignments, *variation)]
    overrides = [part for field, _, value in parts for part in (f"--{field}", value)]
    recipe = parse_recipe([path, *overrides])
    if recipe.optimisation.start_from is not None:
        raise ValueError(f"{path}: start_from={recipe.optimisation.start_from!r}; only runs from new weights compare")
    data = open_data(recipe)
    config = recipe.model_config(data.processor, 1 if data.index is None else len(data.index))
    return Contender(find_recipe(path), recipe, config, tuple(overrides), tuple(variation), label, data)


def train(contender: Contender, seed: int, steps: int, folder: Path, imports: Sequence[str] = ()) -> dict[str, Any]:
    """The figures of a run, metrics.json; a run that is complete is read, one that was stopped goes on.

    Args:
        imports: files with operators of a user's own, which the run's process reads too.

    Raises:
        RuntimeError: when the run fails or is stopped; its own message stands before on stderr.
    """
    fields = [
        str(contender.path), *contender.overrides,
        "--train_steps", str(steps), "--seed", str(seed), "--output_dir", str(folder),
    ]  # fmt: skip
    own = [word for file in imports for word in ("--import", file)]
    command = [sys.executable, "-m", "modeling_trm.commands", "train", *fields, *own]
    wanted = parse_recipe(fields).to_dict()

    def finished() -> dict[str, Any] | None:
        if not (folder / "metrics.json").exists():
            return None
        run = read_json(folder / "metrics.json")
        facts = {"training data": contender.data.fingerprint} | operators_fact(contender.config.block_operators)
        return run if run["recipe"] == wanted and facts.items() <= run["train"].items() else None

    run = finished()
    if run is None:
        code = subprocess.run(command, check=False).returncode
        if code:
            raise RuntimeError(f"the run of {contender.path} with seed {seed} ended with exit code {code}")
        run = finished()
    if run is None:
        raise RuntimeError(
            f"the run of {contender.path} with seed {seed} was stopped; the same command goes on from there"
        )
    return run


def compare(contenders: Sequence[Contender], runs: dict[str, dict[int, dict[str, Any]]]) -> dict[str, Any]:
    """The report: {passes, recipes: {name: figures}, differences to the first recipe: {name: figures}}.

    Args:
        runs: {name: {seed: metrics.json of the run}}, the same seeds for all.

    Raises:
        ValueError: runs whose test puzzles are not the same, or that were evaluated with early exit.
    """
    tests = {(name, seed): run["evaluations"]["test"] for name, seeds in runs.items() for seed, run in seeds.items()}
    if len({(test["fingerprint"], test["count"]) for test in tests.values()}) > 1:
        raise ValueError("the recipes are evaluated on different test puzzles; set test_puzzles and the data alike")
    early = [key for key, test in tests.items() if "by_step" not in test]
    if early:
        raise ValueError(f"the run {early[0]} was evaluated with early exit, which leaves no accuracy of each step")
    # Not every recipe can stop at this number: each is judged at its last step that does not exceed it.
    passes = min(
        contender.passes_a_step * len(tests[contender.name, seed]["by_step"])
        for contender in contenders
        for seed in runs[contender.name]
    )
    figures = {contender.name: _figures(contender, runs[contender.name], passes) for contender in contenders}
    first, *others = figures

    def differences(name: str, measure: str) -> dict[str, Any]:
        pairs = zip(figures[first][measure]["each"], figures[name][measure]["each"])
        return over_seeds([other - one for one, other in pairs])

    return {
        "passes": passes,
        "test_puzzles": next(iter(tests.values()))["count"],
        "recipes": figures,
        "hardware": sorted({run["hardware"] for seeds in runs.values() for run in seeds.values()}),
        "differences": {name: {measure: differences(name, measure) for measure in MEASURES} for name in others},
    }


def _figures(contender: Contender, runs: dict[int, dict[str, Any]], passes: int) -> dict[str, Any]:
    tests = [run["evaluations"]["test"] for run in runs.values()]
    number = passes // contender.passes_a_step
    steps = {run["steps"] for run in runs.values()}.pop()
    return {
        "seeds": list(runs),
        "train_steps": steps,
        "training_flops": steps * contender.flops_a_step,
        "seconds": [run["seconds"] for run in runs.values()],
        "passes_a_step": contender.passes_a_step,
        # Before its first step a model has no answer: nothing is solved.
        "at_equal_passes": over_seeds([test["by_step"][number - 1] if number else 0.0 for test in tests], 0.0)
        | {"step": number, "passes": number * contender.passes_a_step},
        "at_last_step": over_seeds([test["by_step"][-1] for test in tests], 0.0) | {"step": len(tests[0]["by_step"])},
        "cells": over_seeds([test["cell_accuracy"] for test in tests], 0.0),
        "by_source": {
            source: over_seeds([test["by_source"][source]["exact_accuracy"] for test in tests], 0.0)
            for source in tests[0]["by_source"]
        },
        "flops_a_puzzle": len(tests[0]["by_step"]) * flops(contender.config),
        "by_step": [mean(shares) for shares in zip(*(test["by_step"] for test in tests))],
    }


def over_seeds(values: Sequence[float], least: float = -1.0) -> dict[str, Any]:
    """{mean, ci95, each} of shares (least: 0) or their differences.

    ci95 is None where nothing tells how far another seed may lie: for a single one, and for several that are all alike.
    """
    spread = stdev(values) if len(values) > 1 else 0.0
    if spread < ALIKE:
        return {"mean": mean(values), "ci95": None, "each": list(values)}
    reach = T_975[len(values) - 2] * spread / math.sqrt(len(values))
    interval = [max(least, mean(values) - reach), min(1.0, mean(values) + reach)]
    return {"mean": mean(values), "ci95": interval, "each": list(values)}


def markdown_table(report: dict[str, Any]) -> str:
    last, within = LAST, f"in at most {report['passes']} passes"
    lines = [
        f"| recipe | training steps | training FLOPs | solved {within} | {last} (step) | cells "
        f"| difference to the first {within} | {last} | cells |",
        f"|---|{'---:|' * 8}",
    ]
    for name, figures in report["recipes"].items():
        difference = report["differences"].get(name)
        cells = [
            f"{figures['train_steps']:,}",
            f"{figures['training_flops']:.3g}",
            f"{_percent(figures['at_equal_passes'])}, {figures['at_equal_passes']['passes']} passes",
            f"{_percent(figures['at_last_step'])} ({figures['at_last_step']['step']})",
            _percent(figures["cells"]),
            *("" if difference is None else _percent(difference[m]) for m in MEASURES),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_source_table(report["recipes"]), "", _about(report)])


def _about(report: dict[str, Any]) -> str:
    """What the figures of the tables are of, and their intervals."""
    seeds = next(iter(report["recipes"].values()))["seeds"]
    puzzles = f"{report['test_puzzles']:,} test puzzles"
    if len(seeds) == 1:
        return f"One seed ({seeds[0]}) on {puzzles}: nothing tells how another would do, so no interval is given."
    return (
        f"Means over {len(seeds)} seeds ({', '.join(map(str, seeds))}) on the same {puzzles}; in brackets Student's "
        f"95 % interval over the seeds, which is about other seeds and not about other puzzles. Where all seeds are "
        f"alike there is none."
    )


def _source_table(recipes: dict[str, Any]) -> list[str]:
    """What each recipe's model solves of each source at its last step, and what a puzzle costs it."""
    sources = sorted({source for figures in recipes.values() for source in figures["by_source"]})
    lines = [f"| solved {LAST} | {' | '.join(sources)} | FLOP a puzzle |", f"|---|{'---:|' * (len(sources) + 1)}"]
    for name, figures in recipes.items():
        shares = [_percent(figures["by_source"][source]) for source in sources]
        lines.append(f"| {name} | {' | '.join(shares)} | {figures['flops_a_puzzle']:.2g} |")
    return lines


def _percent(figure: dict[str, Any]) -> str:
    interval = "" if figure["ci95"] is None else " ({:.1f} to {:.1f})".format(*(100 * end for end in figure["ci95"]))
    return f"{100 * figure['mean']:.1f} %{interval}"
