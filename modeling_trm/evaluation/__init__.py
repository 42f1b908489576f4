"""Evaluate checkpoints on puzzles and report it: metrics with intervals, sweeps, plots, grids for people."""

from .puzzles import choose_subset, stratified_indices
from .records import EvaluationRecords, summarise
from .runner import evaluate_puzzles, record_puzzles

__all__ = [
    "EvaluationRecords",
    "choose_subset",
    "evaluate_puzzles",
    "record_puzzles",
    "stratified_indices",
    "summarise",
]
