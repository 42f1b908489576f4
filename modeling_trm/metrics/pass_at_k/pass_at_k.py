"""Voting pass@K as a metric of the `evaluate` library: `evaluate.load("modeling_trm/metrics/pass_at_k")`.

Only a wrapper: the figures come from `ranking.pass_at_k`, which needs neither `evaluate` nor `datasets`. The loader
copies this file and the one that it imports; it understands one import a line.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from .ranking import pass_at_k

DESCRIPTION = """\
Voting pass@K of grid puzzles (ARC): each test input is answered under many augmentations, equal answers are counted as
votes, and the reference must be among the K candidates with the most votes. The mean is taken over the test inputs of a
task, then over tasks. It is not the unbiased sampling estimator of pass@k that code_eval computes.
"""

INPUTS = """
Args:
    predictions (list of list of str): for each test input the grid of each vote as text; "" for no grid.
    scores (list of list of float): for each test input the halt probability of each vote.
    references (list of str): for each test input the right grid as text.
    task_ids (list of str): for each test input the task it belongs to.
    k (list of int): numbers of candidates that may be tried. Default: those of 1, 2, 5, 10, 100, 1000 up to the most
        votes of an input.
Returns:
    dict: {"pass@1": share of tasks in 0..1, ...}, one entry for each k.
Examples:
    >>> metric = evaluate.load("modeling_trm/metrics/pass_at_k")
    >>> metric.compute(predictions=[["01", "10", "01"]], scores=[[0.9, 0.2, 0.8]], references=["10"], task_ids=["a"], k=[1, 2])
    {'pass@1': 0.0, 'pass@2': 1.0}
"""  # noqa: E501 (an example that can be pasted)

CITATION = """\
@misc{jolicoeurmartineau2025less,
    title={Less is More: Recursive Reasoning with Tiny Networks},
    author={Alexia Jolicoeur-Martineau},
    year={2025}, eprint={2510.04871}, archivePrefix={arXiv}
}
"""


class PassAtK(evaluate.Metric):
    """`ranking.pass_at_k` with the inputs checked and stored by `evaluate`: ragged lists, scores in float64."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {
                "predictions": datasets.List(datasets.Value("string")),
                "scores": datasets.List(datasets.Value("float64")),
                "references": datasets.Value("string"),
                "task_ids": datasets.Value("string"),
            }
        )
        return evaluate.MetricInfo(
            description=DESCRIPTION, citation=CITATION, inputs_description=INPUTS, features=features
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[str]],
        scores: Sequence[Sequence[float]],
        references: Sequence[str],
        task_ids: Sequence[str],
        k: Sequence[int] | None = None,
    ) -> dict[str, Any]:
        return pass_at_k(predictions, references, task_ids, scores, k)
