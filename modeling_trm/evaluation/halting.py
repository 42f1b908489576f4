"""When to stop: the number of steps and the halt probability with which a model loses nothing, from one evaluation.

Records of every step hold what halting at any probability would have answered, so that nothing is run again. "Nothing"
is the one-standard-error rule (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3): of the
settings that are worse than the best by less than the standard error of the difference, the cheapest. The
difference of two settings on the same puzzles is of those that one alone solves: a puzzle lost counts 1, one gained -1,
and the standard error of that sum is the square root of their number (as in McNemar's test).

Shapes: N puzzles, S supervision steps.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..modeling_trm import TRMForGridReasoning
from ..reasoning_config_trm import ReasoningConfig
from .puzzles import Puzzles
from .records import EvaluationRecords
from .runner import record_puzzles

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
DEPTH = 3  # times the steps of training are looked at: a recursion that has learnt to go on profits from more


def calibrate_halting(
    model: TRMForGridReasoning, puzzles: Puzzles, max_steps: int | None = None, **evaluation: Any
) -> ReasoningConfig:
    """The model's defaults with steps and halting as validation puzzles ask for; never those that are to be reported.

    Args:
        max_steps: the most that may be chosen; None takes DEPTH times the config's halt_max_steps.
        evaluation: further arguments of `record_puzzles`.
    """
    steps = DEPTH * model.config.halt_max_steps if max_steps is None else max_steps
    records = record_puzzles(model, puzzles, max_steps=steps, halt=False, **evaluation)
    return model.reasoning_config.updated(**choose_halting(records))


def most_careful(chosen: Sequence[ReasoningConfig], halt_max_steps: int) -> ReasoningConfig:
    """Of defaults that several sets of puzzles chose, the most steps and the latest halting: nothing loses by them."""
    steps = max(one.max_steps or halt_max_steps for one in chosen)
    halts = [one.halt for one in chosen]
    return chosen[0].updated(max_steps=steps, halt=max(halts) if all(halts) else False)


def choose_halting(records: EvaluationRecords) -> dict[str, Any]:
    """{"max_steps", "halt"} by the one-standard-error rule; halt=False where every threshold loses.

    Nothing is chosen, {}, where no puzzle is solved at any step: all settings would be alike.

    Raises:
        ValueError: records of puzzles that really stopped early, which do not hold every step.
    """
    if records.early_exit:
        raise ValueError(f"early_exit={records.early_exit}: halting is chosen from records of every step, halt=False")
    exact_NS = records.exact
    solved_S = exact_NS.sum(axis=0)
    if not solved_S.any():
        return {}
    best_N = exact_NS[:, int(solved_S.argmax())]
    steps = next(step for step in range(1, len(solved_S) + 1) if loses_nothing(exact_NS[:, step - 1], best_N))
    thresholds = (halt for halt in THRESHOLDS if loses_nothing(answers_at(records, steps, halt), best_N))
    return {"max_steps": steps, "halt": next(thresholds, False)}


def answers_at(records: EvaluationRecords, max_steps: int, halt: float) -> np.ndarray:
    """bool [N]: is the answer right that stands when a puzzle stops above this probability, or else at the end?"""
    above_NS = records.halt_probability[:, :max_steps] > halt
    stop_N = np.where(above_NS.any(axis=1), above_NS.argmax(axis=1), max_steps - 1)
    return records.exact[np.arange(len(records)), stop_N]


def loses_nothing(right_N: np.ndarray, reference_N: np.ndarray) -> bool:
    """Whether the puzzles that the reference alone solves are not more than chance allows; a loss without a gain is."""
    lost, gained = int((reference_N & ~right_N).sum()), int((right_N & ~reference_N).sum())
    return lost <= gained or (lost - gained) ** 2 < lost + gained
