"""The parts of a model card that are computed: what the template of `card.write_model_card` is filled with.

Every function takes a part of metrics.json (see `card`) and returns plain values; nothing here reads or writes files.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any

import torch
import yaml

from ..configuration_trm import PRESETS, TRMConfig
from ..evaluation.display import groups
from ..evaluation.records import VALIDITY
from ..modeling_trm import TRMForGridReasoning
from ..processing_trm import GridProcessor
from ..reasoning_config_trm import ReasoningConfig

NOTHING = "–"
EXAMPLE_SUDOKU = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
OFFICIAL = "pass@2"  # ARC's two attempts
DATA_FIELDS = ("data", "dataset", "data_dir", "data_files")  # of a recipe; none of them: the shipped sample
# scripts/NAME.py of commands that are called otherwise.
SCRIPTS = {
    "build_datasets": "build-data", "convert_reference": "convert", "eval_puzzles": "evaluate", "export_onnx": "export",
    "report_votes": "vote-report", "sweep_inference": "sweep",
}  # fmt: skip
PROTOCOLS = {
    "transductive": "demonstrations of the evaluated tasks were trained on, their test pairs were not",
    "inductive": "neither demonstrations nor test pairs of the evaluated tasks were trained on",
    "unstated": "nothing says whether the demonstrations of the evaluated tasks were trained on",
}


def is_plain(evaluation: dict[str, Any]) -> bool:
    """Whether it has the figures of single answers; one that has not has votes."""
    return "exact_accuracy" in evaluation


def parameter_counts(config: TRMConfig) -> dict[str, str]:
    with torch.device("meta"):
        model = TRMForGridReasoning(config)
    return {"core": f"{model.num_parameters_core():,}", "table": f"{model.num_parameters_table():,}"}


def preset_name(config: TRMConfig) -> str | None:
    fields = config.to_dict()
    return next((name for name, preset in PRESETS.items() if all(fields[key] == preset[key] for key in preset)), None)


def example_puzzle(processor: GridProcessor) -> str:
    height, width = processor.grid_shape
    if processor.task == "arc":
        return "puzzle = [[0, 3, 0], [3, 0, 3]]  # rows of colours 0..9"
    if processor.task == "sudoku" and height == 9:
        return f'puzzle = "{EXAMPLE_SUDOKU}"'
    return f'puzzle = open("puzzle.txt").read()  # {height} lines of {width} characters out of {processor.characters!r}'


# --- results --------------------------------------------------------------------------------------------------------


def evaluation_section(evaluations: dict[str, Any]) -> dict[str, Any]:
    headlines = [
        f"- Solves {_percent(one['exact_accuracy'])} ({_interval(one['exact_accuracy_ci95'])}) "
        f"of {one['count']:,} puzzles: {one['dataset']}, split `{one['split']}`."
        for one in filter(is_plain, evaluations.values())
    ]
    headlines += [
        _vote_headline(one["votes"])
        for one in evaluations.values()
        if "votes" in one and OFFICIAL in one["votes"]["pass_at_k"]
    ]
    told: dict[str, str] = {}  # commands that stand on the card, and under which name
    return {
        "evaluations": [part for name, one in evaluations.items() for part in _paragraphs(name, one, told)],
        "figures": [figure for name, one in evaluations.items() for figure in _figures(name, one)],
        "headline": "\n".join(headlines),
        "ways": [part for name, one in evaluations.items() for part in _ways(name, one, told)],
        "has_votes": any("votes" in one for one in evaluations.values()),
    }


def _ways(name: str, one: dict[str, Any], told: dict[str, str]) -> Iterator[dict[str, Any]]:
    """A table for each command that measured some of the rows: another one may have run on another machine."""
    for command, rows in groupby(one.get("ways", []), key=itemgetter("command")):
        first, *others = rows
        yield {
            "name": name,
            "text": f"{one['dataset']}, split `{one['split']}`{_machine(first)}.",
            **_reproduce(name, command, told),
            "rows": [_way(row) for row in (first, *others)],
        }


def _way(row: dict[str, Any]) -> dict[str, str]:
    """A row of `cards.ways` as cells."""
    right = row.get("exact_when_halted")
    return {
        "way": cell(row["way"]),
        "value": _percent(row["exact_accuracy"]),
        "interval": _interval(row["ci95"]),
        "count": f"{row['count']:,}",
        "mean_steps": f"{row['mean_steps']:.1f}",
        "halted": _percent(row["halted"]) if "halted" in row else NOTHING,
        "exact_when_halted": NOTHING if right is None else _percent(right),
        "seconds": NOTHING if row["seconds"] is None else f"{row['seconds']:,.0f}",
        "engine": f"{row['engine']}, {row['precision']}",
    }


def command_source(command: str) -> str | None:
    """The file of this project that says what a command does, with examples; None for another's command."""
    found = re.search(r"(?:\btrm|modeling_trm\.commands) ([a-z][a-z-]*)|\bscripts/(\w+)\.py", command)
    if found is None:
        return None
    name = found[1] or SCRIPTS.get(found[2], found[2])
    return f"modeling_trm/commands/{name.replace('-', '_')}.py"


def reasoning_in_words(reasoning: ReasoningConfig, config: TRMConfig) -> str:
    """How a checkpoint solves a puzzle where nobody says otherwise."""
    steps = f"{reasoning.max_steps or config.halt_max_steps} supervision steps"
    halt = 0.5 if reasoning.halt is True else reasoning.halt
    solving = f"at most {steps}, stopping at a halt probability above {halt:g}" if halt else f"all {steps}"
    views = f"; in the pipeline {reasoning.views} views of a puzzle vote" if reasoning.views > 1 else ""
    search = f"; {reasoning.num_trajectories} trajectories of each" if reasoning.num_trajectories > 1 else ""
    return f"{solving}{views}{search}"


def vote_figure_name(k: str, votes: dict[str, Any]) -> str:
    protocol = "" if votes["protocol"] is None else f" ({votes['protocol']})"
    return f"{k} of {_voted(votes)}, by voting{protocol}"


def _voted(votes: dict[str, Any]) -> str:
    """ARC has tasks of several test inputs, and a protocol; of the others every puzzle is a task of its own."""
    return "puzzles" if votes["protocol"] is None else "tasks"


def _vote_headline(votes: dict[str, Any]) -> str:
    counts, figure = votes["counts"], votes["pass_at_k"][OFFICIAL]
    protocol = "" if votes["protocol"] is None else f", {votes['protocol']}"
    return (
        f"- {OFFICIAL} by voting{protocol}: {_percent(figure['value'])} ({_interval(figure['ci95'])}) of "
        f"{counts['scored_tasks']:,} {_voted(votes)}, {counts['votes']:,} votes on {counts['inputs']:,} test inputs."
    )


def _reproduce(name: str, command: str, told: dict[str, str]) -> dict[str, Any]:
    """The command and its file; and under which name the card has told it already, if it has."""
    again = told.get(command)
    told.setdefault(command, name)
    return {"command": command, "source": command_source(command), "again": again}


def _paragraphs(name: str, evaluation: dict[str, Any], told: dict[str, str]) -> list[dict[str, Any]]:
    """What was evaluated, how, and the command: one paragraph for single answers, one for votes."""
    shown = []
    where = f"{evaluation['dataset']}, split `{evaluation['split']}`"
    if is_plain(evaluation):
        halt = 0.5 if evaluation["early_exit"] is True else evaluation["early_exit"]
        stopped = f" at most, each puzzle stopped at a halt probability above {halt:g}" if halt else ""
        text = (
            f"{where}, {evaluation['count']:,} puzzles (rows' SHA-256 `{evaluation['fingerprint']}`), "
            f"{evaluation['steps']} supervision steps{stopped}, {_precision(evaluation)}"
            f"{evaluation['seconds']:,.1f} s{_machine(evaluation)}."
        )
        shown.append({"name": name, "text": text, **_reproduce(name, evaluation["command"], told)})
    if "votes" in evaluation:
        votes = evaluation["votes"]
        counts = votes["counts"]
        if "dataset" in votes:
            where = f"{votes['dataset']}, split `{evaluation['split']}`"
        steps = f", {votes['max_steps']} supervision steps" if "max_steps" in votes else ""
        text = (
            f"{where}, {counts['votes']:,} votes on {counts['inputs']:,} test inputs of "
            f"{counts['tasks']:,} {_voted(votes)}{steps}{_machine(votes)}.{_protocol(votes['protocol'])}"
        )
        shown.append(
            {"name": f"{name}, by voting", "text": text, **_reproduce(f"{name}, by voting", votes["command"], told)}
        )
    return shown


def _precision(evaluation: dict[str, Any]) -> str:
    engine = f"engine {evaluation['engine']}, " if "engine" in evaluation else ""
    return f"{evaluation['precision']}, {engine}" if "precision" in evaluation else engine


def _machine(evaluation: dict[str, Any]) -> str:
    return f" on {evaluation['hardware']}" if "hardware" in evaluation else ""


def _protocol(protocol: str | None) -> str:
    if protocol is None:
        return ""
    return f" Protocol: {protocol}" + (f" ({PROTOCOLS[protocol]})." if protocol in PROTOCOLS else ".")


def _figures(name: str, evaluation: dict[str, Any]) -> list[dict[str, str]]:
    """Rows of the table of results."""
    figures: list[tuple[str, float | None, list[float] | None, int]] = []
    if is_plain(evaluation):
        figures += _summary(evaluation)
    if "votes" in evaluation:
        votes = evaluation["votes"]
        count = votes["counts"]["scored_tasks"]
        figures += [
            (vote_figure_name(k, votes), one["value"], one["ci95"], count) for k, one in votes["pass_at_k"].items()
        ]
    if is_plain(evaluation):
        figures += _breakdown(evaluation)
    return [
        {
            "evaluation": name,
            "name": cell(figure),
            "value": NOTHING if share is None else _percent(share),
            "interval": NOTHING if interval is None else _interval(interval),
            "count": f"{count:,}",
        }
        for figure, share, interval, count in figures
    ]


def _summary(one: dict[str, Any]) -> Iterator[tuple[str, float | None, list[float] | None, int]]:
    count, halt, mean = one["count"], one["halt"], one["mean_halting_step"]
    when = f"early exit (mean {mean:.1f} steps)" if one["early_exit"] else f"all {one['steps']} steps"
    yield f"solved exactly, {when}", one["exact_accuracy"], one["exact_accuracy_ci95"], count
    if not one["early_exit"] and one["never_halted"] < count:
        yield f"solved exactly, at first halt (mean {mean:.1f} steps)", halt["exact_accuracy"], halt["ci95"], count
    for name, words in VALIDITY.items():
        if name in one:
            yield words, one[name], one[f"{name}_ci95"], count
    if "baseline" in one:
        yield one["baseline"]["name"], one["baseline"]["exact_accuracy"], one["baseline"]["ci95"], count


def _breakdown(one: dict[str, Any]) -> Iterator[tuple[str, float | None, list[float] | None, int]]:
    yield "cells right", one["cell_accuracy"], None, one["count"]
    for name, group in groups(one):
        yield f"solved exactly, {name}", group["exact_accuracy"], group["ci95"], group["count"]


# --- where the weights come from ------------------------------------------------------------------------------------


def training_section(metrics: dict[str, Any]) -> dict[str, Any]:
    if "recipe" not in metrics:
        return {"recipe": None, "command": None, "command_source": None, "training_facts": []}
    recipe, seconds = metrics["recipe"], metrics["seconds"]
    stated = {name: value for name, value in metrics.get("stated", recipe).items() if value is not None}
    facts: dict[str, Any] = {}
    if recipe.keys() & set(DATA_FIELDS):
        facts["data"] = next(filter(None, map(recipe.get, DATA_FIELDS)), "the sample that is shipped")
    facts |= {
        "seed": metrics["seed"],
        "optimiser steps": f"{metrics['steps']:,}",
        "time": f"{seconds:,.0f} s ({seconds / 60:,.1f} minutes)",
        **({"floating-point operations": f"{metrics['flops']:.2g}"} if "flops" in metrics else {}),
        "hardware": metrics["hardware"],
        "versions": ", ".join(f"{package} {version}" for package, version in metrics["versions"].items()),
    }
    facts |= {name.replace("_", " "): value for name, value in metrics["train"].items()}
    if "before" in metrics:
        facts["before"] = "; ".join(f"`{run['command']}`: {cost(run)}" for run in metrics["before"])
    return {
        "recipe": yaml.safe_dump(stated, sort_keys=False, allow_unicode=True).strip(),
        "command": metrics["command"],
        "command_source": command_source(metrics["command"]),
        "training_facts": [(name, cell(_fact(value))) for name, value in facts.items()],
    }


def cost(*runs: Mapping[str, Any]) -> str:
    """What runs of metrics.json took, one after the other: puzzles, seconds, machine, FLOP."""
    puzzles = [f"{run['train']['training puzzles']:,}" for run in runs if "training puzzles" in run["train"]]
    seconds, where = sum(run["seconds"] for run in runs), " and ".join(dict.fromkeys(run["hardware"] for run in runs))
    parts = [f"{' and '.join(puzzles)} puzzles"] if puzzles else []
    parts.append(f"{seconds:,.0f} s on {where}")
    if all("flops" in run for run in runs):
        parts.append(f"{sum(run['flops'] for run in runs):.1e} FLOP")
    return ", ".join(parts)


def conversion_section(metrics: dict[str, Any]) -> dict[str, Any]:
    """Source, hash and facts of a checkpoint made from another's file; None without."""
    if "conversion" not in metrics:
        return {"conversion": None}
    conversion = metrics["conversion"]
    facts = [(cell(name), cell(_fact(value))) for name, value in conversion["facts"].items()]
    return {"conversion": {"source": conversion["source"], "sha256": conversion["sha256"], "facts": facts}}


def _fact(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def cell(text: str) -> str:
    """The text as a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _interval(interval: list[float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
