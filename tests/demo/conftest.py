"""A page with three small models, built once for all processes, and a headless browser that looks at it."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from modeling_trm import GridProcessor, TRMConfig, TRMForGridReasoning
from modeling_trm.demo.build import write_page
from modeling_trm.demo.contents import DemoModel, read_model
from modeling_trm.demo.runtime import PACKAGE, RuntimeFilesError, runtime_files
from modeling_trm.demo.serving import address_of, make_server
from tests.conftest import TINY
from tests.demo.browser import NAMES, Browser, find_browser

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "model_cards/tr-mamba2mlpt-sudoku-quickstart"
OTHER, MAZE = "asked for", "small mazes"
MAZE_SHAPE = (6, 8)


@pytest.fixture(scope="session")
def runtime() -> dict[str, bytes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("npm_config_fetch_retries", "0")  # without a network, say so at once
        try:
            return runtime_files()
        except RuntimeFilesError as error:
            pytest.skip(f"{PACKAGE} is neither in the cache nor to be had: {error}")


@pytest.fixture(scope="session")
def page(runtime: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a page: the shipped quickstart, the same again as a large model would be, and a maze model."""
    if find_browser() is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "page"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _build(runtime, folder, tmp_path_factory.mktemp("models"))
    return folder


def _build(runtime: dict[str, bytes], folder: Path, workplace: Path) -> None:
    quickstart = read_model(str(QUICKSTART))
    other = DemoModel({**quickstart.facts, "name": OTHER}, quickstart.step)
    processor = GridProcessor("maze", grid_shape=MAZE_SHAPE)
    sizes = {**TINY, "vocab_size": processor.vocab_size, "seq_len": processor.seq_len, "num_puzzles": 1}
    sizes |= {"block_operators": ["mlp_t"], "H_cycles": 1, "L_cycles": 1}
    torch.manual_seed(0)
    TRMForGridReasoning(TRMConfig.from_preset("trm-mlp-t", **sizes)).save_pretrained(workplace / MAZE)
    processor.save_pretrained(workplace / MAZE)
    new = folder.with_name("new")
    write_page([quickstart, other, read_model(str(workplace / MAZE))], runtime, new)
    contents = json.loads((new / "demo.json").read_text(encoding="utf-8"))
    contents["models"][1]["large"] = True
    (new / "demo.json").write_text(json.dumps(contents), encoding="utf-8")
    shutil.move(new, folder)


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


@pytest.fixture(scope="module")
def opened(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


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
