"""Images of checkpoints: what makes them, and that they load and solve in a process without this package."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers.dynamic_module_utils import get_relative_imports

from datasets_builders.features import load_puzzles
from modeling_trm import GridProcessor
from modeling_trm.cards.image import link_code, make_image
from modeling_trm.processing_trm import text_to_colours
from modeling_trm.publishing.prepare import prepare
from modeling_trm.puzzle_index_trm import IDENTITY, PuzzleIndex
from modeling_trm.utils.loading import load_model
from modeling_trm.utils.manifest import changed_weights
from modeling_trm.utils.shipped import shipped_checkpoints
from modeling_trm.verifiers_trm import verifier_for
from tests.forked import run_forked

SHIPPED = shipped_checkpoints()
# Of the shipped test split, four of gen_easy, one of gen_unbiased; all solve them by their own reasoning_config.
SUDOKUS = """
.1..86.4..89.5...3.269.35...4...87959.7...2....85.7....712.......2..43.1....7..2.
..67815.3.12..487...7..219.....2..8.1.9..5.47...47.3...2.9...656.3.4.9...5.......
...9...81912.4.57..8.....34.21...7..837..4.296591.73...74.........5.1......483...
3.6..7..5......13..2....8.42...4.3..4.786....59..7.64287.1...2.15.79....649..8751
7..4....3....9..8...358.4.......4..9.....2.........73.4....6.5..9........613.9.2.
""".split()
# The tests of ARC-AGI-1 tasks (Apache-2.0), with their answers.
ARC = {
    "training/b1948b0a": ("6776/6767/7776/7676", "2772/2727/7772/7272"),
    "training/c8f0f002": ("17717/81777/87178", "15515/81555/85158"),
    "training/d511f180": ("8845/3875/3719/6488", "5548/3578/3719/6455"),
    "training/f76d97a5": ("33353/35333/35535/33353/55533", "00030/03000/03303/00030/33300"),
}
MAZES = [0, 3, 9, 22]  # rows of the shipped 30 x 30 test mazes
FRESH = """
import json, sys
import torch

torch.set_num_threads(1)
sys.modules["modeling_trm"] = sys.modules["datasets_builders"] = None  # importing them fails, as if not installed
from transformers import AutoModel, AutoProcessor, pipeline

for name, puzzles in json.loads(sys.argv[1]).items():
    model = AutoModel.from_pretrained(name, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
    ids = torch.stack([processor(puzzle["grid"]).input_ids[0] for puzzle in puzzles])
    tasks = [puzzle.get("puzzle_task") for puzzle in puzzles]
    rows = torch.tensor([0 if task is None else model.puzzle_index.rows_of(task)[0] for task in tasks])
    answers = [processor.decode(answer) for answer in model.solve(ids, puzzle_ids=rows).answers]
    solver = pipeline("grid-reasoning", model=name, trust_remote_code=True)
    print(json.dumps({"answers": answers, "piped": solver(puzzles[0])["answer"]}))
"""


def puzzles_for(task: str) -> list[dict]:
    if task == "arc":
        return [{"grid": text_to_colours(grid).tolist(), "puzzle_task": name} for name, (grid, _) in ARC.items()]
    if task == "maze":
        mazes = load_puzzles(task, "test").select(MAZES)
        return [{"grid": mazes.processor.decode(maze)} for maze in mazes.inputs]
    return [{"grid": grid} for grid in SUDOKUS]


def assert_solved(task: str, asked: list[dict], answers: list) -> None:
    if task == "arc":
        assert answers == [text_to_colours(answer).tolist() for _, answer in ARC.values()]
    else:
        processor = GridProcessor(task)
        grids = [puzzle["grid"] for puzzle in asked], answers
        puzzles, found = (torch.cat([processor(grid).input_ids for grid in some]) for some in grids)
        assert verifier_for(task, tuple(processor.grid_shape))(puzzles, found).all()


@pytest.mark.slow
def test_they_load_and_solve_without_the_package(tmp_path: Path) -> None:
    """By the README's snippet, from elsewhere; the same puzzles for every checkpoint of a task, in one process: each
    has code of its own, and most of the time goes into what all import."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    # By links, since a path may hold a space.
    for name, folder in SHIPPED.items():
        (tmp_path / name).symlink_to(folder)
    tasks = {name: GridProcessor.from_pretrained(folder).task for name, folder in SHIPPED.items()}
    asked = {name: puzzles_for(task) for name, task in tasks.items()}
    done = run_forked("-c", FRESH, json.dumps(asked), cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    for (name, task), line in zip(tasks.items(), done.stdout.splitlines(), strict=True):
        found = json.loads(line)
        assert_solved(task, asked[name], found["answers"])
        assert found["piped"] == found["answers"][0], name


@pytest.mark.parametrize("folder", SHIPPED.values(), ids=SHIPPED)
def test_the_links_are_what_the_loader_needs(folder: Path) -> None:
    links = {path.name: path for path in folder.glob("*.py")}
    auto_maps = [
        json.loads((folder / name).read_text())["auto_map"] for name in ("config.json", "preprocessor_config.json")
    ]
    needed, todo = set(), {f"{entry.split('.')[0]}.py" for auto_map in auto_maps for entry in auto_map.values()}
    while todo:
        name = todo.pop()
        needed.add(name)
        todo |= {f"{module}.py" for module in get_relative_imports(links[name])} - needed
    assert links.keys() == needed, "link_code(folder) makes the links anew"
    for link in links.values():
        assert link.is_symlink() and os.readlink(link) == f"../../modeling_trm/{link.name}"
        assert link.resolve().is_file()


@pytest.mark.parametrize("folder", SHIPPED.values(), ids=SHIPPED)
def test_the_weights_are_those_that_the_card_states(folder: Path) -> None:
    assert changed_weights(folder) is None


@pytest.mark.parametrize("folder", SHIPPED.values(), ids=SHIPPED)
def test_what_is_published_are_copies(folder: Path) -> None:
    contents = prepare(folder, "org/name")
    code = [upload for upload in contents.uploads if upload.path.endswith("_trm.py")]
    assert {upload.path for upload in code} == {path.name for path in folder.glob("*.py")}
    for upload in code:
        assert isinstance(upload.content, Path)
        assert upload.content.read_bytes() == (folder / upload.path).resolve().read_bytes()
        assert upload.size > 200  # the code's bytes and not a link's
    assert not contents.left_out


def test_its_puzzle_table_knows_the_tasks(tiny_model, tmp_path: Path) -> None:
    """Rounded, and with the names and augmentations of its rows."""
    augmentations = np.stack([IDENTITY] * 4)
    augmentations[2, 0] = 5
    tasks = PuzzleIndex(("training/a", "training/b"), np.array([-1, 0, 0, 1]), augmentations)
    model = tiny_model("trm-attn", vocab_size=12, seq_len=16, num_puzzles=4)
    model.set_puzzle_index(tasks)
    model.save_pretrained(tmp_path / "model")
    GridProcessor("arc", grid_shape=(4, 4)).save_pretrained(tmp_path / "model")
    make_image(tmp_path / "model", tmp_path / "model_cards" / "arc")
    made = load_model(str(tmp_path / "model_cards" / "arc"), verify=True)
    assert made.puzzle_index.fingerprint == tasks.fingerprint
    assert torch.equal(made.base_model.puzzle_emb.weight, model.base_model.puzzle_emb.weight.to(torch.bfloat16))


def test_making_one(tiny_model, tmp_path: Path) -> None:
    model = tiny_model("tr-mamba2mlpt", vocab_size=6, seq_len=16)
    source, cards = tmp_path / "model", tmp_path / "model_cards"
    model.save_pretrained(source)
    GridProcessor("sudoku", grid_shape=(4, 4)).save_pretrained(source)
    files = {path.name for path in make_image(source, cards / "a-name")}
    assert {"README.md", "metrics.json", "model.safetensors", "preprocessor_config.json", "modeling_trm.py"} <= files
    assert "# a-name\n" in (cards / "a-name" / "README.md").read_text()
    saved, made = (load_file(folder / "model.safetensors") for folder in (source, cards / "a-name"))
    assert all(torch.equal(saved[name].to(torch.bfloat16), tensor) for name, tensor in made.items())
    config = json.loads((cards / "a-name" / "config.json").read_text())
    assert changed_weights(cards / "a-name") is None
    assert config["dtype"] == "bfloat16" and not [name for name in config if name.endswith("_backend")]
    with pytest.raises(ValueError, match="a-name: is there already; remove it"):
        make_image(source, cards / "a-name")
    (cards / "a-name" / "gone_trm.py").symlink_to("nowhere")
    assert {path.name for path in link_code(cards / "a-name")} == {
        path.name for path in (cards / "a-name").glob("*.py")
    }
