"""puzzle_table.safetensors: written beside the core, read whole, in part or not at all, and what is refused."""

import copy
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel

from modeling_trm import TRMForGridReasoning, TRMModel
from modeling_trm.puzzle_index_trm import PuzzleIndex
from tests.oracles.puzzle_table import as_dict, assert_same_rows, logits_of, make_index

D = 32  # of TINY
TABLE, NAMES = "puzzle_table.safetensors", "trm-puzzle-table"


def test_file_holds_what_is_documented(model: TRMForGridReasoning, folder: Path) -> None:
    assert not any("puzzle" in name for name in load_file(folder / "model.safetensors"))
    with safe_open(folder / TABLE, framework="pt") as file:
        assert json.loads(file.metadata()["trm-puzzle-table"]) == ["a", "b", "c"]
        assert sorted(file.keys()) == ["augmentation_of_row", "task_of_row", "weight"]
        assert torch.equal(file.get_tensor("weight"), model.model.puzzle_emb.weight)
        assert file.get_tensor("task_of_row").dtype == torch.int32
        assert file.get_tensor("augmentation_of_row").dtype == torch.uint8
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []
    assert (folder / TABLE).stat().st_mode == (folder / "model.safetensors").stat().st_mode


@pytest.mark.parametrize("cls", [TRMForGridReasoning, TRMModel])
def test_round_trip_of_rows_and_index(cls: Any, model: TRMForGridReasoning, folder: Path, tmp_path: Path) -> None:
    loaded = cls.from_pretrained(folder)
    assert loaded.puzzle_index.fingerprint == model.puzzle_index.fingerprint
    assert_same_rows(loaded, as_dict(model.puzzle_index, model.model.puzzle_emb.weight))
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / TABLE).read_bytes() == (folder / TABLE).read_bytes()


@pytest.mark.parametrize("tasks", [["b"], ["c", "a"], ("a", "b", "c")], ids=str)
def test_some_tasks_alone(tasks: Any, model: TRMForGridReasoning, folder: Path, tmp_path: Path) -> None:
    expected = as_dict(model.puzzle_index, model.model.puzzle_emb.weight)
    loaded = TRMForGridReasoning.from_pretrained(folder, puzzle_tasks=tasks)
    assert_same_rows(loaded, {key: row for key, row in expected.items() if key[0] is None or key[0] in tasks})
    assert torch.equal(logits_of(loaded, list(tasks)), logits_of(model, list(tasks)))
    loaded.save_pretrained(tmp_path / "part")
    assert TRMForGridReasoning.from_pretrained(tmp_path / "part").puzzle_index.tasks == loaded.puzzle_index.tasks


@pytest.mark.parametrize("rows_at_once", [1, 2, 16384])
def test_rows_are_read_in_pieces(rows_at_once: int, model: TRMForGridReasoning, folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("modeling_trm.puzzle_table_trm.ROWS_AT_ONCE", rows_at_once)
    expected = as_dict(model.puzzle_index, model.model.puzzle_emb.weight)
    assert_same_rows(TRMForGridReasoning.from_pretrained(folder), expected)
    loaded = TRMForGridReasoning.from_pretrained(folder, puzzle_tasks=["a"])
    assert_same_rows(loaded, {key: row for key, row in expected.items() if key[0] in (None, "a")})


def test_the_core_alone_needs_no_table(model: TRMForGridReasoning, folder: Path, caplog: Any) -> None:
    (folder / TABLE).write_bytes(b"never read")
    core = TRMForGridReasoning.from_pretrained(folder, puzzle_tasks=[])
    (folder / TABLE).unlink()
    with caplog.at_level(logging.WARNING):
        same = TRMForGridReasoning.from_pretrained(folder, puzzle_tasks=[])
    assert not caplog.records
    for loaded in (core, same):
        assert_same_rows(loaded, as_dict(PuzzleIndex.blank(), torch.zeros(1, D)))
        for name, value in model.state_dict().items():
            assert name == "model.puzzle_emb.weight" or torch.equal(loaded.state_dict()[name], value), name


def test_a_missing_table_is_said(folder: Path, caplog: Any) -> None:
    (folder / TABLE).unlink()
    with caplog.at_level(logging.WARNING):
        loaded = TRMForGridReasoning.from_pretrained(folder)
    assert_same_rows(loaded, as_dict(PuzzleIndex.blank(), torch.zeros(1, D)))
    (record,) = caplog.records
    assert f"{folder} has no {TABLE}: of the 7 rows" in record.getMessage()
    with pytest.raises(ValueError, match=f"has no {TABLE}"):
        TRMForGridReasoning.from_pretrained(folder, puzzle_tasks=["a"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16", torch.float64], ids=str)
@pytest.mark.parametrize("keyword", ["dtype", "torch_dtype"])
def test_table_has_the_type_asked_for(dtype: Any, keyword: str, model: TRMForGridReasoning, folder: Path) -> None:
    loaded = TRMForGridReasoning.from_pretrained(folder, **{keyword: dtype})
    asked = torch.bfloat16 if dtype == "bfloat16" else dtype
    assert torch.equal(loaded.model.puzzle_emb.weight, model.model.puzzle_emb.weight.to(asked))
    assert {p.dtype for p in loaded.parameters()} == {asked}


def test_training_state_has_the_table_and_loads(model: TRMForGridReasoning) -> None:
    """accelerate writes and reads the plain state_dict."""
    state = model.state_dict()
    assert state["model.puzzle_emb.weight"].shape == (7, D)
    fresh = TRMForGridReasoning(model.config)
    fresh.load_state_dict(state)
    assert torch.equal(logits_of(model, []), logits_of(fresh, []))
    loaded = TRMForGridReasoning.from_pretrained(None, config=model.config, state_dict=state)
    assert torch.equal(loaded.model.puzzle_emb.weight, model.model.puzzle_emb.weight)


def test_given_state_dict_is_what_is_saved(model: TRMForGridReasoning, tmp_path: Path) -> None:
    averaged = {name: value * 0.5 for name, value in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=dict(averaged))
    loaded = TRMForGridReasoning.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in averaged.items())


def test_variants_and_subfolders_keep_to_themselves(model: TRMForGridReasoning, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "sub")
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(tmp_path / "sub", variant="bf16")
    wide = TRMForGridReasoning.from_pretrained(tmp_path, subfolder="sub", dtype=torch.float32)
    assert torch.equal(wide.model.puzzle_emb.weight, model.model.puzzle_emb.weight)
    narrow = TRMForGridReasoning.from_pretrained(tmp_path / "sub", variant="bf16")
    assert narrow.model.puzzle_emb.weight.dtype == torch.bfloat16


@pytest.fixture
def hub_cache(folder: Path, tmp_path: Path) -> Path:
    """The folder as the Hub's org/name, already downloaded; the tests are offline."""
    repository, commit = tmp_path / "cache" / "models--org--name", "0123456789abcdef0123456789abcdef01234567"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "v1").write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)
    return tmp_path / "cache"


def test_hub_checkpoint_loads_from_the_cache(model: TRMForGridReasoning, hub_cache: Path) -> None:
    where: dict[str, Any] = {"cache_dir": hub_cache, "revision": "v1", "local_files_only": True}
    expected = as_dict(model.puzzle_index, model.model.puzzle_emb.weight)
    for auto in (TRMForGridReasoning, AutoModel):
        assert_same_rows(auto.from_pretrained("org/name", **where), expected)
        part = auto.from_pretrained("org/name", puzzle_tasks=["b"], **where)
        assert_same_rows(part, {key: row for key, row in expected.items() if key[0] in (None, "b")})


def test_a_hub_that_does_not_answer_is_no_missing_table(hub_cache: Path) -> None:
    where: dict[str, Any] = {"cache_dir": hub_cache, "revision": "v1", "local_files_only": True}
    next(hub_cache.rglob(TABLE)).unlink()
    assert TRMForGridReasoning.from_pretrained("org/name", puzzle_tasks=[], **where).config.num_puzzles == 1
    with pytest.raises(OSError, match=rf"looking for {TABLE}; puzzle_tasks=\[\] loads the core"):
        TRMForGridReasoning.from_pretrained("org/name", **where)


def test_failed_write_leaves_the_old_table(model: TRMForGridReasoning, folder: Path, monkeypatch: Any) -> None:
    before = (folder / TABLE).read_bytes()

    def fail(tensors: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half of")
        raise OSError("no space left")

    monkeypatch.setattr("modeling_trm.puzzle_table_trm.save_file", fail)
    model.add_tasks(make_index({"new": 1}))
    with pytest.raises(OSError, match="no space left"):
        model.save_pretrained(folder)
    assert (folder / TABLE).read_bytes() == before
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_pushing_uploads_the_table(model: TRMForGridReasoning, folder: Path, monkeypatch: Any) -> None:
    """Into a folder that has one: transformers uploads only what is newer than what it found there."""
    uploaded: list[str] = []
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **_: SimpleNamespace(repo_id=repo_id))
    monkeypatch.setattr(
        HfApi, "create_commit", lambda self, operations, **_: uploaded.extend(o.path_in_repo for o in operations)
    )
    model.save_pretrained(folder, push_to_hub=True, repo_id="org/name")
    assert {"config.json", "model.safetensors", TABLE} <= set(uploaded)


# --- what does not fit ----------------------------------------------------------------------------------------------


def rewrite(folder: Path, change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> None:
    with safe_open(folder / TABLE, framework="pt") as file:
        metadata = dict(file.metadata())
    tensors = load_file(folder / TABLE)
    change(tensors, metadata)
    save_file(tensors, folder / TABLE, metadata)


def set_weight(value: Any) -> Callable[[dict[str, Tensor], dict[str, str]], None]:
    return lambda tensors, _: tensors.update(weight=value(tensors["weight"]))


BAD_TABLES: dict[str, tuple[Any, str]] = {
    "another width": (set_weight(lambda w: w[:, :16].contiguous()), r"weight is \[7, 16\] .*puzzle_width=32"),
    "fewer rows": (set_weight(lambda w: w[:5]), r"weight is \[5, 32\] and 7 rows are described"),
    "a vector": (set_weight(lambda w: w[0]), r"weight is \[32\]"),
    "NaN": (set_weight(lambda w: w.index_fill(0, torch.tensor([5]), torch.nan)), "NaN or infinite"),
    "infinity": (set_weight(lambda w: w.index_fill(0, torch.tensor([5]), torch.inf)), "NaN or infinite"),
    "no index": (lambda tensors, _: tensors.pop("task_of_row"), "no puzzle table"),
    "another format": (lambda _, metadata: metadata.update(format=metadata.pop(NAMES)), r"metadata on \['format'\]"),
    "no metadata": (lambda _, metadata: metadata.clear(), "no puzzle table"),
    "cut-off names": (lambda _, metadata: metadata.update({NAMES: '["a", '}), "Expecting value"),
    "fewer names": (lambda _, metadata: metadata.update({NAMES: '["a", "b"]'}), "task_of_row"),
}


@pytest.mark.parametrize("problem", BAD_TABLES)
def test_a_bad_table_is_refused_by_name(problem: str, folder: Path) -> None:
    change, named = BAD_TABLES[problem]
    rewrite(folder, change)
    with pytest.raises(ValueError, match=named) as error:
        TRMForGridReasoning.from_pretrained(folder)
    assert str(folder / TABLE) in str(error.value)
    assert TRMForGridReasoning.from_pretrained(folder, puzzle_tasks=[]).config.num_puzzles == 1


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_table_is_refused_by_name(kept: int, folder: Path) -> None:
    (folder / TABLE).write_bytes((folder / TABLE).read_bytes()[:kept])
    with pytest.raises(ValueError, match="puzzle table") as error:
        TRMForGridReasoning.from_pretrained(folder)
    assert str(folder / TABLE) in str(error.value)


def test_another_number_of_rows_than_the_config_says_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"weight is \[7, 32\] .*num_puzzles=9"):
        TRMForGridReasoning.from_pretrained(folder, num_puzzles=9)


def test_unknown_tasks_at_loading_are_named(folder: Path) -> None:
    with pytest.raises(ValueError, match=f"{TABLE}: task 'bb' has no row .*did you mean 'b'"):
        TRMForGridReasoning.from_pretrained(folder, puzzle_tasks=["a", "bb"])
    with pytest.raises(ValueError, match="puzzle_tasks='a' is one name"):
        TRMForGridReasoning.from_pretrained(folder, puzzle_tasks="a")


def test_a_table_within_the_core_is_refused(model: TRMForGridReasoning, folder: Path) -> None:
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=rf"model.puzzle_emb.weight \[7, 32\].*belongs into {TABLE}"):
        TRMForGridReasoning.from_pretrained(folder)


def test_tasks_of_a_model_without_a_table_are_refused(tiny_model: Any, tmp_path: Path) -> None:
    tiny_model("trm-attn", puzzle_prefix_len=0, num_puzzles=1).save_pretrained(tmp_path)
    assert not (tmp_path / TABLE).exists()
    with pytest.raises(ValueError, match="no puzzle table"):
        TRMForGridReasoning.from_pretrained(tmp_path, puzzle_tasks=["a"])
    assert TRMForGridReasoning.from_pretrained(tmp_path, puzzle_tasks=[]).puzzle_index is None
