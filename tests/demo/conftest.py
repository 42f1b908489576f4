"""A page with three small models, built once for all processes, and a headless browser that looks at it."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from datasets_builders.arc_tasks import load_tasks
from modeling_trm import GridProcessor, TRMConfig, TRMForGridReasoning
from modeling_trm.arc_augmentation_trm import draw_augmentations
from modeling_trm.arc_task_trm import task_name
from modeling_trm.demo.build import write_page
from modeling_trm.demo.contents import DemoModel, read_model
from modeling_trm.demo.runtime import PACKAGE, RuntimeFilesError, runtime_files
from modeling_trm.demo.serving import address_of, make_server
from modeling_trm.puzzle_index_trm import IDENTITY, NO_TASK, PuzzleIndex
from tests.conftest import TINY
from tests.demo.browser import NAMES, Browser, find_browser

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "model_cards/tr-mamba2mlpt-sudoku-quickstart"
OTHER, MAZE, ARC = "asked for", "small mazes", "small arc"
MAZE_SHAPE, ARC_SHAPE = (6, 8), (6, 6)
NUM_ARC_TASKS = 14


@pytest.fixture(scope="session")
def runtime() -> dict[str, bytes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("npm_config_fetch_retries", "0")  # without a network, say so at once
        try:
            return runtime_files()
        except RuntimeFilesError as error:
            pytest.skip(f"{PACKAGE} is neither in the cache nor to be had: {error}")


@pytest.fixture(scope="session")
def installed() -> None:
    """Whoever drives a browser asks for this first."""
    if find_browser() is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")


@pytest.fixture(scope="session")
def page(installed: None, runtime: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a page: the shipped quickstart, the same as a large model would be, a maze and an ARC model."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "page"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _build(runtime, folder, tmp_path_factory.mktemp("models"))
    return folder


def _build(runtime: dict[str, bytes], folder: Path, workplace: Path) -> None:
    quickstart = read_model(str(QUICKSTART))
    other = DemoModel({**quickstart.facts, "name": OTHER}, quickstart.step, quickstart.puzzles)
    save_random_model(GridProcessor("maze", grid_shape=MAZE_SHAPE), PuzzleIndex.blank(), workplace / MAZE)
    write_arc_tasks(workplace / "tasks")
    save_arc_model(workplace)
    models = [read_model(str(workplace / MAZE)), read_model(str(workplace / ARC), str(workplace / "tasks"))]
    new = folder.with_name("new")
    write_page([quickstart, other, *models], runtime, new)
    contents = json.loads((new / "demo.json").read_text(encoding="utf-8"))
    contents["models"][1]["large"] = True
    (new / "demo.json").write_text(json.dumps(contents), encoding="utf-8")
    shutil.move(new, folder)


def save_random_model(processor: GridProcessor, index: PuzzleIndex, folder: Path) -> None:
    """A checkpoint of random weights, those of the puzzle table among them."""
    sizes = {**TINY, "vocab_size": processor.vocab_size, "seq_len": processor.seq_len, "num_puzzles": len(index)}
    sizes |= {"block_operators": ["mlp_t"], "H_cycles": 1, "L_cycles": 1}
    torch.manual_seed(0)
    model = TRMForGridReasoning(TRMConfig.from_preset("trm-mlp-t", **sizes))
    torch.nn.init.normal_(model.base_model.puzzle_emb.weight)
    model.set_puzzle_index(index)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def write_arc_tasks(folder: Path) -> None:
    """training/ and evaluation/ of tasks with random grids, one of which is larger than the canvas of ARC_SHAPE."""
    generator = np.random.default_rng(0)

    def pair(number: int) -> dict[str, list[list[int]]]:
        sides = generator.integers(2, 7, (2, 2)) if number else np.full((2, 2), 7)
        return {name: generator.integers(0, 10, shape).tolist() for name, shape in zip(("input", "output"), sides)}

    for subset in ("training", "evaluation"):
        (folder / subset).mkdir(parents=True)
        for number in range(NUM_ARC_TASKS + 1):
            task = {"train": [pair(number), pair(number)], "test": [pair(number)]}
            (folder / subset / f"task{number:02}.json").write_text(json.dumps(task), encoding="utf-8")


def save_arc_model(workplace: Path) -> None:
    """One whose table knows the training tasks, each as it is and once augmented, in that order."""
    tasks = load_tasks("training", data_dir=workplace / "tasks")
    task_of_row = [NO_TASK, *np.repeat(np.arange(len(tasks)), 2)]
    augmentations = np.concatenate([IDENTITY[None], *(draw_augmentations(task, 1, 0) for task in tasks)])
    index = PuzzleIndex(tuple(map(task_name, tasks)), np.array(task_of_row), augmentations)
    save_random_model(GridProcessor("arc", grid_shape=ARC_SHAPE), index, workplace / ARC)


@pytest.fixture(scope="session")
def address(page: Path) -> Iterator[str]:
    yield from served(page)


def served(folder: Path) -> Iterator[str]:
    """The address of the folder while it is served."""
    with make_server(folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield address_of(server)
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def opened(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def modules(opened: Browser, address: str) -> Browser:
    """The page's origin without the page, which would load models: for tests that import its modules."""
    opened.open(f"{address}demo.json")
    return opened


@pytest.fixture
def visit(opened: Browser, address: str) -> Iterator[Callable[..., Browser]]:
    """visit(width, height, scheme): the page, opened anew, its first model ready; afterwards no error was logged."""

    def go(width: int = 1280, height: int = 900, scheme: str = "light") -> Browser:
        opened.errors.clear()
        opened.show_as(width, height, scheme=scheme, mobile=width < 600)
        opened.open(address)
        opened.wait("document.getElementById('loading').textContent.includes('ready')")
        return opened

    yield go
    assert opened.errors == []


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests leave what they saw: pytest's temporary folder, pictures*/."""
    return tmp_path_factory.mktemp("pictures")
