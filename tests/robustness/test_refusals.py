"""Members of each kind that were found by hand: what is refused, by which words, and what is read after all."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from datasets_builders.arc_folder import load_arc_folder, write_arc_folder
from datasets_builders.arc_tasks import parse_task
from datasets_builders.validation import DataError
from modeling_trm import GridProcessor, ReasoningConfig
from modeling_trm.commands import evaluate
from modeling_trm.metrics.pass_at_k.ranking import rank_candidates
from modeling_trm.pipeline_trm import GridReasoningPipeline
from modeling_trm.puzzle_columns_trm import choose_columns
from modeling_trm.puzzle_files_trm import read_text
from modeling_trm.puzzle_input_trm import split_puzzles
from modeling_trm.puzzle_tables_trm import read_table
from modeling_trm.utils.loading import CheckpointError, load_model
from modeling_trm.utils.reading import read_json
from modeling_trm.voting.folder import VOTE_SCHEMA, Vote, chunk_path, read_chunk, write_chunk

GRID = GridProcessor("grid", grid_shape=(4, 4), alphabet=".1234")


@pytest.fixture
def folder(tiny_model, tmp_path: Path) -> Path:
    tiny_model("trm-attn").save_pretrained(tmp_path / "model")
    GRID.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_json_of_any_program(code: str, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(pack('{"name": "ä"}'.encode(code)))
    assert read_json(tmp_path / "a.json") == {"name": "ä"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1, "a": 2}', "'a' is given twice in one object"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"a": ', "Expecting value"),
        ("[1]", "holds a list; allowed: a JSON object"),
        ("\0", "it has a zero byte"),
    ],
)
def test_what_is_no_json_is_one_line(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.json: .*{told}") as error:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(error.value)


def votes(tmp_path: Path, column: str, value: Any) -> None:
    """A chunk of one vote, in which a column has another value."""
    write_chunk(tmp_path, 0, [Vote(0, 0, "12/34", 0.5, 1)])
    path = chunk_path(tmp_path, 0)
    table = pa.parquet.read_table(path)
    place = VOTE_SCHEMA.get_field_index(column)
    changed = table.set_column(place, VOTE_SCHEMA.field(place), pa.array([value], VOTE_SCHEMA.field(place).type))
    pa.parquet.write_table(changed, path)


@pytest.mark.parametrize(
    ("column", "value", "allowed"),
    [
        ("input", 2, "0 to 1"),
        ("input", -1, "0 to 1"),
        ("input", None, "0 to 1"),
        ("view", 3, "0 to 2"),
        ("steps", 0, "1 to 4"),
        ("steps", 5, "1 to 4"),
        ("halt_probability", 1.5, "0 to 1"),
        ("halt_probability", None, "0 to 1"),
    ],
)
def test_votes_out_of_range(column: str, value: Any, allowed: str, tmp_path: Path) -> None:
    votes(tmp_path, column, value)
    manifest = {"num_views": 3, "max_steps": 4, "num_items": 1, "chunk_size": 1}
    with pytest.raises(ValueError, match=rf"000\.parquet: {column} is empty or out of range; allowed: {allowed}"):
        read_chunk(tmp_path, 0, manifest, num_inputs=2)


def test_a_vote_of_a_model_that_diverged_is_read(tmp_path: Path) -> None:
    votes(tmp_path, "halt_probability", float("nan"))
    manifest = {"num_views": 3, "max_steps": 4, "num_items": 1, "chunk_size": 1}
    assert read_chunk(tmp_path, 0, manifest, num_inputs=2).num_rows == 1


def test_a_score_that_no_float_holds() -> None:
    with pytest.raises(ValueError, match="a halt probability is a finite number"):
        rank_candidates(["1"], [10**400])


def test_a_column_has_one_role() -> None:
    with pytest.raises(DataError, match="the column 'a' cannot be the question and the answer"):
        choose_columns(["a", "b"], {"question": "a", "answer": "a"}, "file")


def test_a_role_has_one_column(folder: Path, tmp_path: Path, refused) -> None:
    (tmp_path / "a.csv").write_text("x,answer\n")
    given = ["--model", str(folder), "--data", str(tmp_path / "a.csv"), "--output", str(tmp_path / "out")]
    assert "question=x question=y: names one role twice" in refused(
        evaluate.main, [*given, "--columns", "question=x", "question=y"]
    )


def test_lines_that_end_in_a_carriage_return(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"question,answer\r1.34.41.2.4343.1,1234341221434321\r")
    table, _ = read_table("sudoku", tmp_path / "a.csv")
    assert table["answer"].to_pylist() == ["1234341221434321"]


@pytest.mark.parametrize("shape", ["44", [4.5, 4], 4, [4, None], ["4", "4"]])
def test_a_shape_is_two_whole_numbers(shape: Any) -> None:
    with pytest.raises(ValueError, match="grid_shape="):
        GridProcessor("grid", grid_shape=shape, alphabet=".1")


@pytest.mark.parametrize("alphabet", [True, 5, [".", "1"], b".1"])
def test_an_alphabet_is_text(alphabet: Any) -> None:
    with pytest.raises(ValueError, match="needs alphabet="):
        GridProcessor("grid", grid_shape=(2, 2), alphabet=alphabet)


def test_a_grid_within_itself() -> None:
    grid: list[Any] = []
    grid.append(grid)
    with pytest.raises(ValueError, match="nested more than 8 deep"):
        split_puzzles(grid, GRID)


def test_tasks_nested_without_end_or_none_at_all() -> None:
    arc = GridProcessor("arc")
    assert "nested too deeply" in read_text("[" * 100_000, arc, "t.json")[0].error
    assert [one.error for one in read_text("{}", arc, "t.json")] == ["holds no task"]


def test_another_kind_of_model(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="model_type='bert'; allowed: 'trm'"):
        load_model(str(folder))


def test_a_table_of_whole_numbers(folder: Path) -> None:
    path = folder / "puzzle_table.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    save_file(tensors | {"weight": tensors["weight"].int()}, path, metadata)
    with pytest.raises(CheckpointError, match="weight holds I32; allowed: floating-point numbers"):
        load_model(str(folder))


def test_what_the_pipeline_is_given(folder: Path) -> None:
    model = load_model(str(folder))
    pipe = GridReasoningPipeline(model=model, feature_extractor=GRID, device="cpu")
    for value in ({"max_steps": 1}, 5):
        with pytest.raises(ValueError, match=r"reasoning_config=.* is not allowed; allowed: a ReasoningConfig"):
            pipe("." * 16, reasoning_config=value)
    with pytest.raises(ValueError, match="characters=5 is not allowed"):
        pipe("." * 16, characters=5)
    assert pipe("." * 16, reasoning_config=ReasoningConfig(max_steps=1))["steps"] == 1


def test_what_a_model_is_given(folder: Path) -> None:
    model = load_model(str(folder))
    ids = torch.zeros(1, 16, dtype=torch.long)
    for wrong in (ids.float(), ids.bool()):
        with pytest.raises(TypeError, match=r"input_ids holds torch.*; allowed: whole numbers"):
            model.solve(wrong, max_steps=1)
    with pytest.raises(ValueError, match=r"labels has shape \[1, 3\], input_ids \[1, 16\]"):
        model(ids, labels=ids[:, :3])


def test_a_summary_that_was_changed(tmp_path: Path) -> None:
    """It says how a set was built: protocol and augmentations of what is trained on."""
    from datasets_builders.arc_build import build_arc
    from datasets_builders.arc_set import ArcOptions

    pair = {"input": np.eye(2, dtype=int).tolist(), "output": [[1]]}
    task = parse_task({"train": [pair], "test": [pair]}, "t", "evaluation", "here")
    options = ArcOptions(subsets=("evaluation",), num_augmentations=1, validation_tasks=0, on_leak="report")
    write_arc_folder(build_arc({"evaluation": [task]}, options), tmp_path / "set")
    load_arc_folder(tmp_path / "set")
    summary = json.loads((tmp_path / "set" / "summary.json").read_text())
    (tmp_path / "set" / "summary.json").write_text(json.dumps(summary | {"options": {}}))
    with pytest.raises(DataError, match=r"summary\.json (has|is damaged).*; build the folder again"):
        load_arc_folder(tmp_path / "set")
    (tmp_path / "set" / "manifest.json").unlink()  # of an earlier version
    (tmp_path / "set" / "summary.json").write_text(json.dumps(summary | {"options": {"nonsense": 1}}))
    with pytest.raises(DataError, match=r"summary\.json: is not of this folder, or not ours \(TypeError"):
        load_arc_folder(tmp_path / "set")
