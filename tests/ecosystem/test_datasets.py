"""Our data sets in the hands of PyTorch's DataLoader and of `datasets`: map, set_format, streaming."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from huggingface_hub import DatasetCard
from torch.utils.data import DataLoader

from datasets_builders.features import PuzzleSet, load_puzzles
from datasets_builders.sources import SAMPLES
from datasets_builders.sudoku import Sudoku
from modeling_trm import GridProcessor
from modeling_trm.losses_trm import IGNORE_INDEX

SOLVED = ["1234341221434321", "2143432112343412", "4321214334121234", "3412123443212143"]
PUZZLES = [solved[:5] + "...." + solved[9:] for solved in SOLVED]
PROCESSOR = GridProcessor("sudoku", grid_shape=(4, 4))
COLUMNS = ["input_ids", "labels"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "four.csv"
    path.write_text("question,answer\n" + "\n".join(map(",".join, zip(PUZZLES, SOLVED))), encoding="utf-8")
    return path


@pytest.fixture
def expected() -> dict[str, torch.Tensor]:
    return {"input_ids": PROCESSOR(PUZZLES).input_ids, "labels": PROCESSOR(SOLVED).input_ids}


def encoded(rows: dict[str, list[str]]) -> dict[str, Any]:
    """What a user maps over the rows of text."""
    grids = (rows["question"], rows["answer"])
    return {name: PROCESSOR(texts, return_tensors="np").input_ids for name, texts in zip(COLUMNS, grids)}


def assert_trains(loader: DataLoader, expected: dict[str, torch.Tensor], tiny_model: Callable[..., Any]) -> None:
    """Two batches of two, and the model's loss on them."""
    model = tiny_model("trm-mlp-t", vocab_size=PROCESSOR.vocab_size, seq_len=PROCESSOR.seq_len)
    batches = list(loader)
    assert [len(batch["input_ids"]) for batch in batches] == [2, 2]
    for name in COLUMNS:
        assert torch.equal(torch.cat([batch[name] for batch in batches]), expected[name])
    assert torch.equal(model(**batches[0]).loss, model(**{name: value[:2] for name, value in expected.items()}).loss)


def test_a_puzzle_set_is_a_data_set(file: Path, expected: dict[str, torch.Tensor], tiny_model) -> None:
    puzzles = load_puzzles("sudoku", "test", data_files={"test": file})
    for one in (puzzles, pickle.loads(pickle.dumps(puzzles))):  # noqa: S301 (its own; worker processes get it so)
        assert_trains(DataLoader(one, batch_size=2), expected, tiny_model)
    assert len(list(puzzles)) == 4 and torch.equal(puzzles[-1]["labels"], expected["labels"][3])


def test_padding_is_ignored_and_puzzle_ids_come_along() -> None:
    ids = np.array([[2, 3], [4, 0]], dtype=np.uint8)
    puzzles = PuzzleSet("arc", ids, ids, np.array(["", ""]), np.zeros(2), PROCESSOR, puzzle_ids=np.array([5, 7]))
    batch = next(iter(DataLoader(puzzles, batch_size=2)))
    assert batch["labels"].tolist() == [[2, 3], [4, IGNORE_INDEX]] and batch["input_ids"].tolist() == ids.tolist()
    assert batch["puzzle_ids"].tolist() == [5, 7]


@pytest.mark.parametrize("kind", ["in memory", "streamed"])
def test_rows_of_text_are_mapped(
    kind: str, file: Path, expected: dict[str, torch.Tensor], tiny_model, tmp_path: Path
) -> None:
    builder = Sudoku(cache_dir=str(tmp_path), data_files={"test": str(file)})
    builder.download_and_prepare()
    rows = builder.as_dataset("test") if kind == "in memory" else builder.as_streaming_dataset("test")
    mapped = rows.map(encoded, batched=True, batch_size=3, remove_columns=["source", "question", "answer", "rating"])
    if kind == "in memory":
        mapped.set_format("torch", columns=COLUMNS)
        assert mapped[0]["input_ids"].dtype == torch.int64
    else:
        mapped = mapped.with_format("torch")
    assert_trains(DataLoader(mapped, batch_size=2), expected, tiny_model)


def test_each_shipped_sample_is_a_configuration_of_its_own() -> None:
    """`load_dataset` of the folder would else mix puzzles of all sizes and tasks in one split."""
    told = DatasetCard.load(SAMPLES / "README.md").data.configs
    files = {(one["config_name"], file["split"], file["path"]) for one in told for file in one["data_files"]}
    shipped = [line.split()[1] for line in (SAMPLES / "SHA256SUMS").read_text(encoding="utf-8").splitlines()]
    assert files == {(Path(name).parent.name, Path(name).stem, name) for name in shipped}


def test_the_shipped_samples_load_as_a_data_set(tmp_path: Path) -> None:
    small = datasets.load_dataset(str(SAMPLES), "sudoku-4x4", cache_dir=str(tmp_path))
    assert {split: len(rows) for split, rows in small.items()} == {"test": 198}
