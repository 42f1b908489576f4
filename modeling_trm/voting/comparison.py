"""Two models on the same test inputs: their figures side by side, and whether the difference may be chance.

Pairing by task makes the comparison sharp: a difference of pass@K gets a paired bootstrap interval and a sign-flip
test (`bootstrap`). "Solved only by one" is what the paper on Mamba-2 hybrids counts (arXiv 2602.12078): a task is
solved when all of its test inputs are. The p-values are not corrected for the number of values of K.

Shapes: T tasks, K values of k.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics.pass_at_k.ranking import checked_k
from ..utils.bootstrap import paired_interval, sign_flip_test
from ..utils.files import write_json, write_text
from .plots import pass_at_k_curves
from .records import VoteRecords
from .report import MEANS, interval_text, markdown_table, mean_text, share_text, summarise_votes, title_text
from .statistics import InputStatistics, input_name, mean, statistics_of, task_scores

AGREEMENT_K = (1, 2)


def compare_votes(
    a: VoteRecords, b: VoteRecords, names: tuple[str, str] = ("A", "B"), k: Sequence[int] | None = None, seed: int = 0
) -> dict[str, Any]:
    """Both reports' figures, their differences (first minus second), and what only one of the two solves.

    The order of the test inputs may differ; the inputs and their answers may not.

    Returns:
        JSON-ready: {names, task, protocols, counts, pass_at_k: {"pass@1": {values, difference, ci95, p}}, coverage:
        the same, means: {name: {values, difference}}, solved_by: {"pass@1": {tasks: {both, neither, only}, inputs:
        ...}}, top1_agreement, reports}; `values` and `only` are lists in the order of the names.

    Raises:
        ValueError: when the names are equal, no answer is known, or the inputs or answers differ, naming the first
            difference.
    """
    if names[0] == names[1]:
        raise ValueError(f"names must differ, got {names[0]!r} twice")
    numbers_b = _matched(a, b, names)
    first = statistics_of(a)
    unordered = statistics_of(b)
    second = [unordered[number] for number in numbers_b]
    if not any(one.has_reference for one in first):
        raise ValueError("no test input has a known answer: there is nothing to compare")
    k = checked_k(k, max(one.votes for one in [*first, *second]))
    reports = [summarise_votes(records, k, seed) for records in (a, b)]
    most = max(1, *(one.unique_candidates for one in [*first, *second]))
    limits = {**{f"pass@{places}": places for places in k}, "coverage": most}
    differences = {name: _difference(first, second, places, seed) for name, places in limits.items()}
    solved = {**{f"pass@{places}": places for places in AGREEMENT_K}, "coverage": most}
    return {
        "names": list(names),
        "task": reports[0]["task"],
        "protocols": [report["protocol"] for report in reports],
        "counts": {name: reports[0]["counts"][name] for name in ("scored_tasks", "scored_inputs")},
        "coverage": differences.pop("coverage"),
        "pass_at_k": differences,
        "means": {name: _mean_difference([report["means"][name] for report in reports]) for name in MEANS},
        "solved_by": {name: _solved_by(first, second, places) for name, places in solved.items()},
        "top1_agreement": mean([float(x.top1_grid == y.top1_grid != "") for x, y in zip(first, second, strict=True)]),
        "reports": reports,
    }


def markdown_comparison(comparison: dict[str, Any]) -> str:
    """The comparison as a Markdown page, the protocols in its first line."""
    one, other = comparison["names"]
    counts = comparison["counts"]
    rows = [
        [key, *map(share_text, entry["values"]), f"{100 * entry['difference']:+.2f}", interval_text(entry["ci95"]),
         f"{entry['p']:.3f}"]
        for key, entry in {**comparison["pass_at_k"], "coverage": comparison["coverage"]}.items()
    ]  # fmt: skip
    for key, title in MEANS.items():
        entry = comparison["means"][key]
        difference = mean_text(key, entry["difference"])
        signed = f"+{difference}" if difference[0].isdigit() else difference
        rows.append([title, *(mean_text(key, value) for value in entry["values"]), signed, "", ""])
    solved = [
        [f"{limit}, {kind}", *(f"{count:,}" for count in (split["both"], *map(len, split["only"]), split["neither"]))]
        for limit, kinds in comparison["solved_by"].items()
        for kind, split in kinds.items()
    ]
    sections = [
        f"# {title_text(comparison['task'], comparison['protocols'])}: {one} against {other}",
        f"{counts['scored_tasks']:,} tasks with {counts['scored_inputs']:,} test inputs. Difference: "
        f"{one} minus {other}; pass@K, coverage and shares in %. Interval: paired bootstrap over "
        f"tasks; p: two-sided sign-flip test over tasks, each K by itself.",
        markdown_table(["figure", one, other, "difference", "95 % interval", "p"], *rows),
        "## Solved by both, by one, by neither\n\nA task is solved when all of its test inputs are.",
        markdown_table(["", "both", f"only {one}", f"only {other}", "neither"], *solved),
        f"Both rank the same grid first on {comparison['top1_agreement']:.1%} of the test inputs.",
    ]
    return "\n\n".join(sections) + "\n"


def write_comparison(comparison: dict[str, Any], folder: str | Path) -> list[Path]:
    """Write comparison.json (without the two reports), comparison.md and plots/comparison_pass_at_k.png."""
    folder = Path(folder)
    figures = {name: value for name, value in comparison.items() if name != "reports"}
    reports = dict(zip(comparison["names"], comparison["reports"], strict=True))
    return [
        write_json(folder / "comparison.json", figures),
        write_text(folder / "comparison.md", markdown_comparison(comparison)),
        pass_at_k_curves(reports, folder / "plots" / "comparison_pass_at_k.png"),
    ]


def _matched(a: VoteRecords, b: VoteRecords, names: Sequence[str]) -> list[int]:
    """For each test input of a the number of the same one in b."""
    if a.manifest["task"] != b.manifest["task"]:
        raise ValueError(
            f"task is {a.manifest['task']!r} for {names[0]}, {b.manifest['task']!r} for {names[1]}; "
            f"only evaluations of one task can be compared"
        )
    number_in_b = {input_name(test_input): number for number, test_input in enumerate(b.inputs)}
    numbers = []
    for test_input in a.inputs:
        name = input_name(test_input)
        if name not in number_in_b:
            raise ValueError(f"{name} is a test input of {names[0]} alone; both must have the same")
        numbers.append(number_in_b[name])
        other = b.inputs[numbers[-1]]
        for field in ("question", "reference"):
            mine, theirs = vars(test_input)[field], vars(other)[field]
            if mine != theirs:
                raise ValueError(
                    f"{name}: the {field} differs: {_short(mine)} for {names[0]}, {_short(theirs)} for {names[1]}"
                )
    unmatched = number_in_b.keys() - {input_name(test_input) for test_input in a.inputs}
    if unmatched:
        raise ValueError(f"{min(unmatched)} is a test input of {names[1]} alone; both must have the same")
    return numbers


def _difference(
    first: Sequence[InputStatistics], second: Sequence[InputStatistics], places: int, seed: int
) -> dict[str, Any]:
    first_T, second_T = (task_scores(statistics, [places])[1][:, 0] for statistics in (first, second))
    return {
        "values": [mean(first_T.tolist()), mean(second_T.tolist())],
        "difference": mean((first_T - second_T).tolist()),
        "ci95": list(paired_interval(first_T, second_T, seed=seed)),
        "p": sign_flip_test(first_T, second_T, seed=seed),
    }


def _mean_difference(values: list[float | None]) -> dict[str, Any]:
    one, other = values
    return {"values": values, "difference": None if one is None or other is None else one - other}


def _solved_by(first: Sequence[InputStatistics], second: Sequence[InputStatistics], places: int) -> dict[str, Any]:
    """Which tasks and which test inputs both, one or neither solve within so many candidates."""
    tasks, first_T1 = task_scores(first, [places])
    second_T1 = task_scores(second, [places])[1]
    scored = [(x, y) for x, y in zip(first, second, strict=True) if x.has_reference]
    return {
        "tasks": _partition(tasks, first_T1[:, 0] == 1, second_T1[:, 0] == 1),
        "inputs": _partition(
            [x.name for x, _ in scored],
            np.array([x.solved_within(places) for x, _ in scored]),
            np.array([y.solved_within(places) for _, y in scored]),
        ),
    }


def _partition(names: Sequence[str], first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    return {
        "both": int(np.sum(first & second)),
        "neither": int(np.sum(~first & ~second)),
        "only": [
            [names[number] for number in np.flatnonzero(side).tolist()] for side in (first & ~second, second & ~first)
        ],
    }


def _short(text: str | None) -> str:
    return "unknown" if text is None else repr(text) if len(text) <= 40 else f"{text[:40]!r}..."
