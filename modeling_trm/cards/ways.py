"""The figures of the card protocol: one row for each way of solving, and the plain figures of the whole card.

A row: {way, count, solved, exact_accuracy, ci95 (Wilson's), mean_steps (supervision steps a puzzle, those of all its
views or trajectories), seconds (of the pass, that all its rows share; null where unknown), pass, engine, precision,
hardware, command, fingerprint (of the puzzles' rows)} and the settings of the pass; with views or trajectories
chosen_by; with halting also halted and exact_when_halted (shares, the latter null where nothing halted).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..evaluation.baseline import baseline
from ..evaluation.chunks import SECONDS
from ..evaluation.records import EvaluationRecords, summarise
from ..utils.intervals import wilson_interval
from .protocol import ANY, Measured

CHOICES = {"vote": "{}, most votes", "halt": "{}, largest halt logit", ANY: "any of {}, which no choice can exceed"}


def rows_of(measured: Measured, trained_steps: int, command: str) -> list[dict[str, Any]]:
    """The rows of a pass.

    Args:
        trained_steps: supervision steps of a puzzle in training, the depth that is reported besides the pass's own.
        command: that reproduces them.
    """
    shared = {
        "pass": measured.name,
        **measured.settings,
        "seconds": float(measured.outcome[SECONDS].sum()),
        "engine": measured.engine,
        "precision": measured.precision,
        "hardware": measured.hardware,
        "command": command,
        "fingerprint": measured.puzzles.fingerprint,
    }
    make = {"steps": _steps_rows, "halting": _halting_rows}.get(measured.name, _several_rows)
    return [row | shared for row in make(measured, trained_steps)]


def plain_figures(measured: Measured) -> dict[str, Any]:
    """What `evaluate_puzzles` returns, of the pass "steps" or "halting"."""
    puzzles, outcome, steps = measured.puzzles, measured.outcome, measured.settings["steps"]
    halt = measured.settings.get("halt", False)
    halts = outcome["halt_logits"] > _logit(halt or 0.5)
    records = EvaluationRecords(
        sources=puzzles.sources,
        ratings=puzzles.ratings,
        exact=outcome["exact"][:, -1:] if halt else outcome["exact"],
        halt_probability=1 / (1 + np.exp(-(outcome["halt_logits"][:, -1:] if halt else outcome["halt_logits"]))),
        first_halt=np.where(halts.any(1), halts.argmax(1) + 1, 0),
        answers=outcome["answers"],
        cells_right=outcome["cells_right"],
        cells=outcome["cells"],
        non_finite=np.array(~np.isfinite(outcome["halt_logits"]).all(1)),
        valid=None,
        max_steps=steps,
        early_exit=halt,
    )
    seconds = float(outcome[SECONDS].sum())
    return summarise(records) | {
        "task": puzzles.task,
        "fingerprint": puzzles.fingerprint,
        "early_exit": halt,
        "engine": measured.engine,
        "precision": measured.precision,
        "hardware": measured.hardware,
        "seconds": seconds,
        "puzzles_per_second": len(records) / seconds,
        **baseline(puzzles),
    }


def _steps_rows(measured: Measured, trained_steps: int) -> Iterator[dict[str, Any]]:
    exact = measured.outcome["exact"]
    for limit in _limits(measured, trained_steps):
        yield {"way": f"{limit} steps", **_share(exact[:, limit - 1]), "mean_steps": float(limit)}


def _halting_rows(measured: Measured, trained_steps: int) -> Iterator[dict[str, Any]]:
    exact, steps = measured.outcome["exact"], measured.outcome["steps"]
    halt = measured.settings["halt"]
    halts = measured.outcome["halt_logits"] > _logit(halt)
    for limit in _limits(measured, trained_steps):
        halted, right = halts[:, limit - 1], exact[:, limit - 1]
        yield {
            "way": f"halting at {halt:g}, up to {limit} steps",
            **_share(right),
            "mean_steps": float(np.minimum(steps, limit).mean()),
            "halted": float(halted.mean()),
            "exact_when_halted": float(right[halted].mean()) if halted.any() else None,
        }


def _several_rows(measured: Measured, trained_steps: int) -> Iterator[dict[str, Any]]:
    halt, what = measured.settings["halt"], measured.name
    noise = f" with noise {measured.settings['noise_std']:g}" if what == "trajectories" else ""
    for K in measured.settings[what]:
        for choice, words in CHOICES.items():
            if f"{choice} {K}" in measured.outcome:
                chosen = words.format(f"{K} {what}{noise}")
                yield {
                    "way": f"{chosen}; halting at {halt:g}, up to {measured.settings['steps']} steps",
                    "chosen_by": choice,
                    **_share(measured.outcome[f"{choice} {K}"]),
                    "mean_steps": float(measured.outcome[f"steps {K}"].mean()),
                }


def _limits(measured: Measured, trained_steps: int) -> Sequence[int]:
    return sorted({min(trained_steps, measured.settings["steps"]), measured.settings["steps"]})


def _share(right: np.ndarray) -> dict[str, Any]:
    solved, count = int(right.sum()), len(right)
    return {
        "count": count,
        "solved": solved,
        "exact_accuracy": solved / count,
        "ci95": list(wilson_interval(solved, count)),
    }


def _logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))
