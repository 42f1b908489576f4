"""A diagnosis as one HTML page for people: all pictures are inside it, it needs no other file and no network."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..utils.files import write_text

# Column: (measure, heading, how to write it).
COLUMNS = (
    ("exact", "solved", "{:.1%}"),
    ("cell_accuracy", "cells right", "{:.1%}"),
    ("entropy", "entropy", "{:.3f}"),
    ("cells_changed", "changed", "{:.1f}"),
    ("halt_probability", "halt", "{:.3f}"),
    ("advantage_margin", "margin", "{:.4f}"),
    ("dead", "dead", "{:.0%}"),
    ("dead_unsolved", "dead, unsolved", "{:.0%}"),
    ("z_H_effective_rank", "rank z_H", "{:.1f}"),
    ("z_H_distance", "moved z_H", "{:.3f}"),
    ("z_L_effective_rank", "rank z_L", "{:.1f}"),
    ("z_L_distance", "moved z_L", "{:.3f}"),
)
FIGURES = {
    "solving": (
        "A grid being solved",
        "The solved puzzle that took longest (the first puzzle where none was solved). Dark cells are given. Colours "
        "are the model's confidence: orange unsure, sand one half, blue sure. A dark frame: the step changed it.",
    ),
    "answers": (
        "The answer, step by step",
        "Entropy is that of the token probabilities of a cell to fill in: 0 is sure. The advantage margin is the rate "
        "at which moving along a step's change of the logits lowers the cross-entropy of the right answer: at the "
        "step's start it bounds the gain from above, at its end from below (its scale is linear near 0, logarithmic "
        "beyond). A step whose margin at the start is not positive cannot have gained anything: it is dead. A puzzle "
        "that is already right has nothing left to gain, so the steps that matter are those of puzzles not yet right.",
    ),
    "latents": (
        "The latents, step by step",
        "Effective rank is the number of directions that the positions of a puzzle really use; 1 means that all are "
        "alike. The size is 1 by construction, because the stack ends in a normalisation. The relative change is the "
        "distance to a fixed point: once it is near 0, further steps only repeat.",
    ),
    "updates": (
        "Every single update",
        "The same inside the supervision steps: each application of the stack to a latent. Updates of the scratch "
        "latent z_L leave the answer as it is and have no entropy or margin of their own.",
    ),
    "reliability": (
        "Does the model know when it is right?",
        "All puzzles after all steps: how often the answer was right where the halting head gave a probability. On the "
        "dashed line the probability can be taken at its word; the error is the mean distance from it. AUC is the "
        "chance that a right answer has a higher halt probability than a wrong one: 0.5 says nothing, 1 tells all.",
    ),
}
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 1040px; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; line-height: 1.25; }} h2 {{ font-size: 1.2rem; margin-top: 2.2rem; }}
img {{ max-width: 100%; height: auto; }}
code {{ overflow-wrap: anywhere; }}
.facts {{ color: #555; }}
.warnings {{ background: #fdf0e7; border-left: 4px solid #D55E00; padding: .6rem 1rem; }}
.fine {{ background: #e9f5f0; border-left: 4px solid #009E73; padding: .6rem 1rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem; }}
th, td {{ padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e3e3e3; white-space: nowrap; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="facts">{facts}</p>
{warnings}
<h2>In numbers</h2>
<p>Means over the puzzles after each supervision step. “moved” is the relative change of a latent in the step, “dead,
unsolved” the share of dead steps among the puzzles that were not right before.</p>
<div class="wide">
{table}
</div>
{figures}
<h2>How to repeat it</h2>
<p><code>{command}</code></p>
<p class="facts">{machine}</p>
</body>
</html>
"""


def write_page(output: str | Path, report: dict[str, Any], pictures: dict[str, Path]) -> Path:
    """Write the page of a report (`trm diagnose`) with its pictures, {name in FIGURES: PNG or GIF file}."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    facts = [
        f"{report['puzzles']:,} puzzles of {report['dataset']} ({report['split']})",
        f"{len(report['steps'])} supervision steps of {report['H_cycles']} × {report['L_cycles']} cycles (H × L)",
        f"{report['num_latents']} latent{'s' if report['num_latents'] > 1 else ''}",
        f"operators {', '.join(report['block_operators'])}",
    ]
    text = PAGE.format(
        title=html.escape(f"Inside {Path(report['model']).name}: {report['task']}"),
        facts=html.escape(" · ".join(facts)),
        warnings=_warnings(report["warnings"]),
        table=_table(report["steps"]),
        figures="\n".join(_figure(name, path) for name, path in pictures.items()),
        command=html.escape(report["command"]),
        machine=html.escape(f"{report['hardware']}; {versions}"),
    )
    return write_text(output, text)


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return '<p class="fine">No warnings: all values are finite, and nothing collapsed on an unsolved puzzle.</p>'
    items = "".join(f"<li>{html.escape(warning)}</li>" for warning in warnings)
    return f'<div class="warnings"><strong>Warnings</strong><ul>{items}</ul></div>'


def _table(steps: Sequence[dict[str, Any]]) -> str:
    columns = [column for column in COLUMNS if any(row.get(column[0]) is not None for row in steps)]
    lines = ["<tr><th>step</th>" + "".join(f"<th>{html.escape(heading)}</th>" for _, heading, _ in columns) + "</tr>"]
    for row in steps:
        cells = [("–" if row.get(name) is None else form.format(row[name])) for name, _, form in columns]
        lines.append(f"<tr><th>{row['step']}</th>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _figure(name: str, path: Path) -> str:
    title, meaning = FIGURES[name]
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    image = f'<img src="data:image/{path.suffix[1:]};base64,{content}" alt="{html.escape(title)}">'
    return f"<h2>{html.escape(title)}</h2>\n<p>{html.escape(meaning)}</p>\n{image}"
