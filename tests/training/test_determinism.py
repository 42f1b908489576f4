"""The same seed gives the same weights, bit for bit; another seed does not."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from modeling_trm.training.determinism import ENVIRONMENT, deterministic_algorithms
from scripts import train

SHORT = {"train_steps": 4, "eval_every": 2, "validation_puzzles": 4, "test_puzzles": 2}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Those of the end and their average."""
    return {
        f"{kind} {name}": value
        for kind in ("ema", "last")
        for name, value in load_file(folder / "weights" / kind / "model.safetensors").items()
    }


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("optimiser", ["muon", "adam_atan2"])
def test_two_runs_of_one_seed_are_bitwise_equal(optimiser, write_recipe, tmp_path):
    torch.use_deterministic_algorithms(False)  # as outside of the tests
    options = {**SHORT, "optimiser": optimiser}
    runs = {"one": {}, "two": {}, "flag": {"deterministic": True}}
    if optimiser == "muon":  # the seed is drawn from before there is an optimiser
        runs["other"] = {"seed": 1}
    for name, more in runs.items():
        assert train.main([str(write_recipe(name, **options, **more))]) == 0
        assert not torch.are_deterministic_algorithms_enabled()
    one = weights(tmp_path / "one")
    assert equal(one, weights(tmp_path / "two"))
    assert equal(one, weights(tmp_path / "flag"))
    assert "other" not in runs or not equal(one, weights(tmp_path / "other"))


@pytest.mark.parametrize("before", [(False, False), (True, True)])
def test_what_held_before_holds_afterwards(before, monkeypatch):
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    monkeypatch.setenv("MAMBA_DETERMINISTIC", "0")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with suppress(KeyboardInterrupt), deterministic_algorithms():
        assert torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert {name: os.environ[name] for name in ENVIRONMENT} == ENVIRONMENT
        raise KeyboardInterrupt
    assert torch.are_deterministic_algorithms_enabled() == before[0]
    assert torch.is_deterministic_algorithms_warn_only_enabled() == before[1]
    assert not torch.backends.cudnn.deterministic
    assert os.environ["MAMBA_DETERMINISTIC"] == "0" and "CUBLAS_WORKSPACE_CONFIG" not in os.environ


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_two_runs_on_cuda_are_bitwise_equal(precision, write_recipe, tmp_path):
    options = {**SHORT, "cpu": False, "deterministic": True, "mixed_precision": precision}
    for name in ("one", "two"):  # each in a process of its own: cuBLAS reads its setting once
        subprocess.run([sys.executable, train.__file__, str(write_recipe(name, **options))], check=True)
    assert equal(weights(tmp_path / "one"), weights(tmp_path / "two"))
