"""The report of an evaluation by voting: pass@K with intervals, coverage and selection, hard and easy inputs.

Figures and their definitions: `statistics`; the columns of the table are those of the paper on Mamba-2 hybrids
(arXiv 2602.12078), pass@K is TRM's (arXiv 2510.04871): voting pass@K, not the sampling estimator of `code_eval`.
pass@K and coverage are means over a task's test inputs, then over tasks, with intervals over tasks; everything else
is a mean over test inputs.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics.pass_at_k.ranking import checked_k
from ..utils.bootstrap import share_interval
from ..utils.files import write_json, write_text
from .folder import NOT_ATTEMPTED
from .plots import entropy_distribution, pass_at_k_curves, rank_histogram
from .records import VoteRecords
from .statistics import InputStatistics, mean, statistics_of, task_scores
from .submission import Submission, build_submission, with_all_tasks, write_submission

HARD_SHARE = 0.15  # an input with a smaller share of correct votes is hard (arXiv 2602.12078)
MEANS = {
    "unique_candidates": "unique candidates",
    "entropy_bits": "vote entropy (bits)",
    "top1_share": "top-1 share",
    "top1_margin": "top-1 margin",
    "correct_share": "correct-vote share",
}
PER_CENT = ("top1_share", "top1_margin", "correct_share")

EXPLANATION = (
    "pass@K, coverage and shares in %. pass@K: the answer is among the K candidates with the most votes (ties: mean "
    "halt probability, then the grid), mean over a task's test inputs, then over tasks; this is not the sampling "
    "estimator of `code_eval`. Coverage: it is among the candidates at all. Intervals: percentile bootstrap over tasks "
    "(Wilson's where no task or every task is solved). The other columns are means over test inputs; shares are of all "
    "votes cast for an input, those that are no grid included."
)


def summarise_votes(records: VoteRecords, k: Sequence[int] | None = None, seed: int = 0) -> dict[str, Any]:
    """The report as a JSON-ready dictionary; what cannot be computed (no reference, no vote) is null or left out.

    Args:
        k: numbers of candidates that may be tried; None: 1, 2, 5, 10, 100, 1000 up to the most votes of an input.
        seed: of the bootstrap.

    Returns:
        {task, protocol, manifest, counts, pass_at_k: {"pass@1": {value, ci95}}, coverage: {value, ci95} | None,
        means, split: {threshold, hard, easy}, rank_histogram: {ranks: {"1": inputs}, absent}, inputs: [...]}.

    Raises:
        ValueError: when the records have no test input or `k` is not a list of distinct whole numbers from 1.
    """
    if not records.inputs:
        raise ValueError("the records have no test input: there is nothing to report")
    statistics = statistics_of(records)
    k = checked_k(k, max(statistic.votes for statistic in statistics))
    scored = [statistic for statistic in statistics if statistic.has_reference]
    return {
        "task": records.manifest["task"],
        "protocol": records.manifest["protocol"],
        "manifest": records.manifest,
        "counts": _counts(statistics),
        "pass_at_k": _pass_at_k(statistics, k, seed),
        "coverage": _coverage(statistics, seed),
        "means": {name: mean(_values(statistics, name)) for name in MEANS},
        "split": _split(scored),
        "rank_histogram": _rank_counts(scored),
        "inputs": [{**asdict(statistic), "hard": _is_hard(statistic)} for statistic in statistics],
    }


def markdown_report(report: dict[str, Any], name: str | None = None) -> str:
    """The report as a Markdown page, the protocol in its first line.

    Args:
        name: of the model in the table (default: the manifest's).
    """
    name = name or model_name(report)
    counts = report["counts"]
    sections = [
        f"# {title_text(report['task'], [report['protocol']])}: pass@K by voting",
        f"{counts['tasks']:,} tasks, {counts['inputs']:,} test inputs, {counts['votes']:,} votes "
        f"({counts['votes_without_grid']:,} of them no grid).",
        markdown_table(*_figures_table(report, name)),
        EXPLANATION,
        f"## Hard and easy inputs\n\nHard: less than {report['split']['threshold']:.0%} of the votes are correct.",
        markdown_table(*_split_table(report["split"])),
    ]
    diverged = report["manifest"].get("non_finite_votes", 0)
    if diverged:
        sections.append(f"WARNING: NaN or infinite halt logits on {diverged:,} votes: the model has diverged.")
    for field, title in (
        ("inputs_without_prediction", "Without any prediction (counted as wrong)"),
        ("inputs_without_reference", "Without a known answer (not scored)"),
    ):
        if counts[field]:
            sections.append(f"{title}: {_some(counts[field])}.")
    left_out = sorted(report["manifest"].get(NOT_ATTEMPTED, {}))
    if left_out:
        sections.append(f"Not attempted, and in no figure above ({len(left_out)} tasks): {_some(left_out)}.")
    return "\n\n".join(sections) + "\n"


def write_report(records: VoteRecords, folder: str | Path, seed: int = 0) -> tuple[dict[str, Any], list[Path]]:
    """Write report.json, report.md, plots/*.png and, for arc, submission.json; returns the report and the paths.

    The submission has every task: those that the records' manifest says were not attempted get empty attempts.

    Raises:
        ValueError: as `summarise_votes` and `build_submission`; then nothing is written.
    """
    folder = Path(folder)
    report = summarise_votes(records, seed=seed)
    submission = _complete_submission(records) if report["task"] == "arc" else None
    written = [
        write_json(folder / "report.json", report),
        write_text(folder / "report.md", markdown_report(report)),
        entropy_distribution(report, folder / "plots" / "vote_entropy.png"),
    ]
    if report["pass_at_k"]:
        written.append(pass_at_k_curves({model_name(report): report}, folder / "plots" / "pass_at_k.png"))
        written.append(rank_histogram(report, folder / "plots" / "correct_rank.png"))
    if submission is not None:
        written.append(write_submission(submission, folder / "submission.json"))
    return report, written


def _complete_submission(records: VoteRecords) -> Submission:
    submission = build_submission(records)
    expected = {task: len(tests) for task, tests in submission.items()} | records.manifest.get(NOT_ATTEMPTED, {})
    return with_all_tasks(submission, dict(sorted(expected.items())))


def title_text(task: str, protocols: Sequence[str | None]) -> str:
    """Task and protocols in words; tasks other than arc have no protocol."""
    named = [f"{protocol} protocol" for protocol in dict.fromkeys(protocols) if protocol is not None]
    return ", ".join([task, " and ".join(named)]) if named else task


def model_name(report: dict[str, Any]) -> str:
    """What the evaluation noted as the model's name; it may have noted none."""
    return str(report["manifest"].get("model", "model"))


def share_text(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def markdown_table(header: Sequence[str], *rows: Sequence[str]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _counts(statistics: Sequence[InputStatistics]) -> dict[str, Any]:
    return {
        "tasks": len({statistic.task_id for statistic in statistics}),
        "inputs": len(statistics),
        "scored_tasks": len({statistic.task_id for statistic in statistics if statistic.has_reference}),
        "scored_inputs": sum(statistic.has_reference for statistic in statistics),
        "votes": sum(statistic.votes for statistic in statistics),
        "votes_without_grid": sum(statistic.votes_without_grid for statistic in statistics),
        "inputs_without_prediction": [one.name for one in statistics if one.unique_candidates == 0],
        "inputs_without_reference": [one.name for one in statistics if not one.has_reference],
    }


def _pass_at_k(statistics: Sequence[InputStatistics], k: Sequence[int], seed: int) -> dict[str, Any]:
    tasks, scores_TK = task_scores(statistics, k)
    return {f"pass@{places}": _estimate(scores_TK[:, column], seed) for column, places in enumerate(k) if tasks}


def _coverage(statistics: Sequence[InputStatistics], seed: int) -> dict[str, Any] | None:
    """pass@K with no limit on K."""
    most = max(statistic.unique_candidates for statistic in statistics)
    tasks, scores_TK = task_scores(statistics, [most])
    return _estimate(scores_TK[:, 0], seed) if tasks else None


def _estimate(scores_T: np.ndarray, seed: int) -> dict[str, Any]:
    return {"value": mean(scores_T.tolist()), "ci95": list(share_interval(scores_T, seed=seed))}


def _values(statistics: Sequence[InputStatistics], name: str) -> list[float]:
    return [value for value in (vars(statistic)[name] for statistic in statistics) if value is not None]


def _is_hard(statistic: InputStatistics) -> bool | None:
    return None if statistic.correct_share is None else statistic.correct_share < HARD_SHARE


def _split(scored: Sequence[InputStatistics]) -> dict[str, Any]:
    groups: dict[str, Any] = {"threshold": HARD_SHARE}
    for name, hard in (("hard", True), ("easy", False)):
        group = [statistic for statistic in scored if _is_hard(statistic) is hard]
        groups[name] = {
            "inputs": len(group),
            "pass@1": mean([float(one.solved_within(1)) for one in group]),
            "pass@2": mean([float(one.solved_within(2)) for one in group]),
            "coverage": mean([float(one.rank is not None) for one in group]),
            **{figure: mean(_values(group, figure)) for figure in MEANS},
        }
    return groups


def _rank_counts(scored: Sequence[InputStatistics]) -> dict[str, Any]:
    ranks = Counter(statistic.rank for statistic in scored if statistic.rank is not None)
    return {"ranks": {str(rank): ranks[rank] for rank in sorted(ranks)}, "absent": len(scored) - ranks.total()}


def _figures_table(report: dict[str, Any], name: str) -> list[list[str]]:
    estimates = dict(report["pass_at_k"])
    if report["coverage"] is not None:
        estimates["coverage"] = report["coverage"]
    header = ["model", *estimates, *MEANS.values()]
    values = [name, *(share_text(estimate["value"]) for estimate in estimates.values())]
    intervals = ["95 % interval", *(interval_text(estimate["ci95"]) for estimate in estimates.values())]
    return [header, [*values, *_mean_cells(report["means"])], [*intervals, *[""] * len(MEANS)]]


def _split_table(split: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name in ("hard", "easy"):
        group = split[name]
        shares = [share_text(group[figure]) for figure in ("pass@1", "pass@2", "coverage")]
        rows.append([name, f"{group['inputs']:,}", *shares, *_mean_cells(group)])
    return [["inputs", "count", "pass@1", "pass@2", "coverage", *MEANS.values()], *rows]


def _mean_cells(means: dict[str, Any]) -> list[str]:
    return [mean_text(name, means[name]) for name in MEANS]


def mean_text(name: str, value: float | None) -> str:
    """One of MEANS as text: shares in per cent, the others as they are."""
    if value is None:
        return "-"
    return f"{100 * value:.1f}" if name in PER_CENT else f"{value:.2f}"


def interval_text(interval: Sequence[float]) -> str:
    low, high = interval
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _some(names: Sequence[str], most: int = 20) -> str:
    shown = "; ".join(names[:most])
    return shown if len(names) <= most else f"{shown}; and {len(names) - most:,} more"
