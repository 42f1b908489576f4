"""Checkpoints that come with the package, by name."""

from pathlib import Path

import pytest
import torch

from modeling_trm.utils.loading import CheckpointError, load_model, load_processor
from modeling_trm.utils.shipped import find_checkpoint, in_order_of_loading, shipped_checkpoints
from scripts import solve
from tests.conftest import PUZZLE

NAME = "tr-mamba2mlpt-sudoku-quickstart"


def test_a_name_loads_what_its_folder_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = shipped_checkpoints()[NAME]
    assert folder.parent.name == "model_cards" and find_checkpoint(NAME) == str(folder)
    by_name, by_folder = load_model(NAME).state_dict(), load_model(str(folder)).state_dict()
    assert all(torch.equal(tensor, by_folder[name]) for name, tensor in by_name.items())
    assert load_processor(NAME).task == "sudoku"


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(NAME).mkdir()
    assert find_checkpoint(NAME) == NAME
    with pytest.raises(CheckpointError, match=r"the folder holds no config\.json"):
        load_model(NAME)


def test_an_unknown_name_lists_the_shipped_ones(refused) -> None:
    error = refused(solve.main, ["--model", "tr-mamba2mlpt-sudok", PUZZLE])
    assert "checkpoint 'tr-mamba2mlpt-sudok': no such folder (and not a Hub id of the form org/name)" in error
    assert all(name in error for name in shipped_checkpoints()) and "did you mean tr-mamba2mlpt-sudoku?" in error
    with pytest.raises(CheckpointError) as raised:
        load_model("quite-another")
    assert "did you mean" not in str(raised.value)


def test_a_command_takes_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    assert solve.main(["--model", NAME, PUZZLE, "--max-steps", "4"]) == 0
    assert "5 3 4 | 6 7 8 | 9 1 2" in capsys.readouterr().out


def test_each_is_for_a_task() -> None:
    assert shipped_checkpoints("arc").keys() == {"tr-mamba2attn-symbols-arc"}
    assert shipped_checkpoints("maze").keys() == {"trm-conv2d-maze"}
    of_tasks = [shipped_checkpoints(task).keys() for task in ("arc", "maze", "sudoku")]
    assert set().union(*of_tasks) == shipped_checkpoints().keys()


def test_a_page_has_arc_where_its_tasks_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(in_order_of_loading()) == set(shipped_checkpoints())
    monkeypatch.setattr("modeling_trm.utils.shipped.find_spec", lambda name: None)
    assert set(in_order_of_loading()) == set(shipped_checkpoints()) - set(shipped_checkpoints("arc"))
