"""A fake Hub that this process and its children talk to, and small folders to publish."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import close_session, constants

from modeling_trm import GridProcessor
from modeling_trm.cards.card import write_model_card
from tests.hub.fake_hub import FakeHub
from tests.hub.hub_api import WRITE_TOKEN


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The Hub of this process: huggingface_hub has read its environment already, so its constants are set."""
    served = FakeHub()
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # huggingface_hub waits longer and longer before it retries
    close_session()
    yield served
    close_session()
    served.close()
    assert served.store.unknown == []


@pytest.fixture
def child_environment(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    """What a process needs to talk to this Hub, with caches of its own and nothing of ours on its path."""
    foreign = ("HF_", "TRANSFORMERS_", "PYTHON", "EVALUATE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": WRITE_TOKEN,
        "HF_HOME": str(tmp_path / "hf_home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # evaluate would ask another server
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def checkpoint(tiny_model, tmp_path: Path) -> Callable[..., Path]:
    """checkpoint(preset): a folder as the trainer leaves it, with a card that has been evaluated on nothing yet."""

    def make(preset: str = "trm-mlp-t", name: str = "checkpoint") -> Path:
        folder = tmp_path / name
        tiny_model(preset).save_pretrained(folder)
        GridProcessor("sudoku", grid_shape=(4, 4)).save_pretrained(folder)
        (folder / "plots").mkdir()
        (folder / "plots" / "accuracy.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        write_model_card(folder, {"evaluations": {}})
        return folder

    return make


CARD = """\
---
license: mit
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---
load_dataset("THIS_FOLDER_OR_REPOSITORY")
"""


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """The smallest folder of a data set."""
    folder = tmp_path / "dataset"
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.table({"question": ["1.", ".2"]}), folder / "data/train-00000-of-00001.parquet")
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return folder


@pytest.fixture
def contents_of() -> Callable[[Path], dict[str, bytes]]:
    """contents_of(folder): {path: bytes} of all its files."""

    def read(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    return read
