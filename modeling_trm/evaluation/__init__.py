"""Evaluate checkpoints on puzzles and report it: metrics with intervals, sweeps, plots, grids for people."""

from .records import EvaluationRecords, summarise
from .runner import choose_subset, evaluate_puzzles, record_puzzles, stratified_indices

__all__ = [
    "EvaluationRecords",
    "choose_subset",
    "evaluate_puzzles",
    "record_puzzles",
    "stratified_indices",
    "summarise",
]
