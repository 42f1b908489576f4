"""Evaluate checkpoints on puzzles and report it: metrics with intervals, plots, model cards, grids for people."""

from .intervals import wilson_interval
from .records import EvaluationRecords, summarise
from .runner import choose_subset, evaluate_puzzles, record_puzzles, stratified_indices

__all__ = [
    "EvaluationRecords",
    "choose_subset",
    "evaluate_puzzles",
    "record_puzzles",
    "stratified_indices",
    "summarise",
    "wilson_interval",
]
