"""A comparison of models as a page with tables, as JSON and as plots. Figures: see `compare.compare_models`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..utils.figures import COLOURS
from ..utils.files import write_json, write_text
from ..voting.plots import pass_at_k_curves
from ..voting.report import MEANS, interval_text, markdown_table, mean_text, share_text
from .plots import accuracy_curves, agreement_map, solved_only_bars

NOTES = (
    "Exact: every cell right, after all steps and when each puzzle stops at its first positive halt logit. Intervals: "
    "Wilson's, 95 %. Cells: right ones among the blanks. First right step: mean over the puzzles ever right; halt "
    "step: mean over all, those that never halt counted with all steps. FLOPs: 2 for each multiply-add of a matrix "
    "product; of a solved puzzle: mean over those right at their halt. Seconds a puzzle: all steps, the models taking "
    "turns."
)
PAIR_NOTES = (
    "Same answer: share of the puzzles with the same grid after all steps, right or wrong. p: McNemar's exact test, "
    "two-sided, each pair by itself (with many pairs some p-values are small by chance)."
)
VOTE_NOTES = (
    "pass@K: the right grid is among the K candidates with the most votes (ties: mean halt probability); coverage: it "
    "is among the candidates at all; shares are of all votes of a puzzle. Voting pass@K is not the sampling estimator "
    "of `code_eval`."
)


def write_comparison(comparison: dict[str, Any], folder: str | Path) -> list[Path]:
    """Write comparison.json, comparison.md and plots/*.png; returns the paths."""
    folder, plots = Path(folder), Path(folder) / "plots"
    written = [
        write_json(folder / "comparison.json", comparison),
        write_text(folder / "comparison.md", markdown_comparison(comparison)),
        accuracy_curves(comparison, plots / "accuracy_by_step.png"),
        agreement_map(comparison, plots / "agreement.png"),
        solved_only_bars(comparison, plots / "solved_only_by.png"),
    ]
    votes = {name: figures["votes"] for name, figures in comparison["models"].items() if "votes" in figures}
    if 0 < len(votes) <= len(COLOURS):
        title = f"{comparison['task'].capitalize()}: puzzles solved within K attempts"
        written.append(pass_at_k_curves(votes, plots / "pass_at_k.png", title))
    return written


def markdown_comparison(comparison: dict[str, Any]) -> str:
    """The comparison as a Markdown page."""
    models = comparison["models"]
    sections = [
        f"# {comparison['task'].capitalize()}, {comparison['count']:,} puzzles: {' against '.join(models)}",
        markdown_table(*_accuracy_table(comparison)),
        markdown_table(*_cost_table(models)),
        NOTES,
        "## Two by two",
        markdown_table(*_pair_table(comparison)),
        PAIR_NOTES,
        f"All models solve {comparison['solved_by_all']:,} puzzles, none solves {comparison['solved_by_none']:,}.",
    ]
    if any("votes" in figures for figures in models.values()):
        sections += ["## Votes", *_vote_sections(comparison), VOTE_NOTES]
    broken = {name: figures["non_finite"] for name, figures in models.items() if figures["non_finite"]}
    if broken:
        diverged = ", ".join(f"{name} on {count:,} puzzles" for name, count in broken.items())
        sections.append(f"WARNING: NaN or infinite halt logits: {diverged}.")
    return "\n\n".join(sections) + "\n"


def size_text(count: float | None) -> str:
    """In thousands, millions, ... : 6829058 is "6.83M"."""
    if count is None:
        return "-"
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.2f}{unit}"
    return f"{count:.0f}"


def _accuracy_table(comparison: dict[str, Any]) -> list[list[str]]:
    header = ["model", "exact", "95 %", "exact with halting", "95 %", "cells", "first right step", "halt step", "steps",
              "solved only here"]  # fmt: skip
    return [header] + [
        [
            _labelled(name, figures),
            share_text(figures["exact_accuracy"]),
            interval_text(figures["exact_accuracy_ci95"]),
            share_text(figures["halt"]["exact_accuracy"]),
            interval_text(figures["halt"]["ci95"]),
            share_text(figures["cell_accuracy"]),
            _number(figures["first_right_step"]["mean"]),
            _number(figures["mean_halting_step"]),
            str(figures["steps"]),
            f"{comparison['solved_only_by'][name]:,}",
        ]
        for name, figures in comparison["models"].items()
    ]


def _cost_table(models: Mapping[str, dict[str, Any]]) -> list[list[str]]:
    header = ["model", "preset", "operators", "H x L", "latents", "core parameters", "table", "FLOPs a step",
              "FLOPs a puzzle", "FLOPs a solved puzzle", "seconds a puzzle"]  # fmt: skip
    return [header] + [
        [
            name,
            figures["preset"] or "own",
            ", ".join(figures["operators"]),
            f"{figures['H_cycles']} x {figures['L_cycles']}",
            str(figures["num_latents"]),
            f"{figures['parameters']['core']:,}",
            f"{figures['parameters']['table']:,}",
            *(size_text(figures[key]) for key in ("flops_step", "flops_puzzle", "flops_solved_puzzle")),
            f"{figures['seconds_per_puzzle']:.3g}",
        ]
        for name, figures in models.items()
    ]


def _pair_table(comparison: dict[str, Any]) -> list[list[str]]:
    header = ["A and B", "same answer", "both solve", "only A", "only B", "neither", "A - B", "p"]
    return [header] + [
        [
            " and ".join(pair["names"]),
            share_text(pair["agreement"]),
            *(f"{count:,}" for count in (pair["both"], *pair["only"], pair["neither"])),
            f"{100 * pair['difference']:+.2f}",
            f"{pair['p']:.2g}",
        ]
        for pair in comparison["pairs"]
    ]


def _vote_sections(comparison: dict[str, Any]) -> list[str]:
    models = {name: figures["votes"] for name, figures in comparison["models"].items()}
    places = list(next(iter(models.values()))["pass_at_k"])
    rows = [
        [
            name,
            *(share_text(votes["pass_at_k"][key]["value"]) for key in places),
            share_text(votes["coverage"]["value"]),
            *(mean_text(key, votes["means"][key]) for key in MEANS),
        ]
        for name, votes in models.items()
    ]
    pair_rows = [
        [
            " and ".join(pair["names"]),
            key,
            *(f"{len(only):,}" for only in pair["votes"]["solved_by"][key]["tasks"]["only"]),
            f"{100 * entry['difference']:+.2f}",
            interval_text(entry["ci95"]),
            f"{entry['p']:.2g}",
        ]
        for pair in comparison["pairs"]
        for key, entry in {**pair["votes"]["pass_at_k"], "coverage": pair["votes"]["coverage"]}.items()
        if key in pair["votes"]["solved_by"]
    ]
    views = next(iter(models.values()))["views"]
    return [
        f"{views} views of each puzzle, all steps.",
        markdown_table(["model", *places, "coverage", *MEANS.values()], *rows),
        markdown_table(["A and B", "figure", "only A", "only B", "A - B", "95 % interval", "p"], *pair_rows),
    ]


def _labelled(name: str, figures: dict[str, Any]) -> str:
    return f"{name} ({size_text(figures['parameters']['core'])})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
