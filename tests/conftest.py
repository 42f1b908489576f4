"""What every test shares: nothing from the network, fixed seeds, torch.empty full of NaN, models small enough to test.

A file under tests/ imports the float64 oracles as `from tests.oracles import ...`.
"""

# ruff: noqa: E402 (the environment is set before Hugging Face is imported)

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before any Hugging Face import: they read the environment once. A cache of their own, so that no test sees the user's.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="trm-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_ETAG_TIMEOUT"] = os.environ["HF_HUB_DOWNLOAD_TIMEOUT"] = "600"  # s; of a Hub on this busy machine
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from hypothesis import HealthCheck, settings
from matplotlib.figure import Figure
from transformers.utils import logging as transformers_logging

from datasets_builders.features import PuzzleSet
from modeling_trm import OPERATORS, PRESETS, GridProcessor, TRMConfig, TRMForGridReasoning
from modeling_trm.utils.shipped import FIRST
from tests.pictures import leave_blank

PUZZLE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
SOLVED = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
IMAGE = Path(__file__).parents[1] / "model_cards" / FIRST  # the shipped checkpoint of the quickstart

# Tiny tensors: a second thread only waits for the first.
torch.set_num_threads(1)
transformers_logging.disable_progress_bar()
# The same examples in every run, however slow the machine: a failure in CI is a failure here.
settings.register_profile("trm", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("trm")

# For tests that take seconds a preset: each operator in one hybrid with attention or MLP-t.
ONE_OF_A_KIND = [
    preset for preset in PRESETS if preset not in ("medium", "tr-mamba3attn", "tr-deltaattn", "symbols-attn")
]

# A 4x4 Sudoku (padding, blank, four digits) through a stack of 32 channels; every size differs from every other where
# it can, so that a swapped axis shows.
TINY = {
    "vocab_size": 6,
    "seq_len": 16,
    "num_puzzles": 3,
    "puzzle_prefix_len": 2,
    "hidden_size": 32,
    "H_cycles": 2,
    "L_cycles": 2,
    "halt_max_steps": 4,
    "num_attention_heads": 4,
    "mlp_multiple_of": 8,
    "mamba_d_state": 12,
    "mamba_head_dim": 16,
    "delta_heads": 2,
    "delta_key_dim": 32,
    "delta_value_dim": 16,
}
# At these sizes a call of these stacks doubles a rounding error: a step of 6 calls multiplies it by 50, of the others
# by 5 (of 256 channels all by 1 to 5). Of 2 calls the same tolerances hold.
FEW = {"H_cycles": 1, "L_cycles": 1}
STEADY = {
    "tr-mamba3attn": {**FEW, "mamba_head_dim": 32},
    "tr-mamba3mlpt": {**FEW, "mamba_head_dim": 32},
    "tr-deltamlpt": FEW,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("cuda") is not None:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _fixed_seed_and_nan_memory(request: pytest.FixtureRequest) -> Iterator[None]:
    """Seeds torch; fills uninitialised memory with NaN (deterministic mode does), so that a forgotten value shows."""
    torch.manual_seed(0)
    # CUDA tests compare within a tolerance: some CUDA kernels have no deterministic form and would raise.
    torch.use_deterministic_algorithms(request.node.get_closest_marker("cuda") is None)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's cache outlives whatever a test kills; a training run would wait some 350 times."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def whole_pictures() -> None:
    """For tests of pictures themselves: they are drawn as for a user."""


@pytest.fixture(autouse=True)
def _blank_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "whole_pictures" not in request.fixturenames:
        monkeypatch.setattr(Figure, "savefig", leave_blank)


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    """accelerate keeps its state for the life of the process; a run of another precision must not find it."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def alone(name: str) -> dict[str, Any]:
    """A stack of this operator; what mixes symbol fields needs them."""
    return {"block_operators": [name], "symbol_fields": getattr(OPERATORS[name], "mixes_fields", False)}


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """refused(command, *arguments): what stands on stderr when the command has ended with exit code 2."""

    def run(command: Callable[..., Any], *arguments: Any) -> str:
        with pytest.raises(SystemExit) as stopped:
            command(*arguments)
        assert stopped.value.code == 2
        return capsys.readouterr().err

    return run


@pytest.fixture
def tiny_config() -> Callable[..., TRMConfig]:
    """tiny_config(preset, **overrides): the preset at the sizes of TINY."""

    def make(preset: str, **overrides: Any) -> TRMConfig:
        return TRMConfig.from_preset(preset, **{**TINY, **STEADY.get(preset, {}), **overrides})

    return make


@pytest.fixture
def tiny_model(tiny_config: Callable[..., TRMConfig]) -> Callable[..., TRMForGridReasoning]:
    """tiny_model(preset, **overrides): a model in which nothing hides behind a zero.

    The halting head and the puzzle table start at zero by design; here they are random, as after training.
    """

    def make(preset: str, **overrides: Any) -> TRMForGridReasoning:
        model = TRMForGridReasoning(tiny_config(preset, **overrides))
        with torch.no_grad():
            torch.nn.init.normal_(model.q_head.weight)
            torch.nn.init.normal_(model.q_head.bias)
            if model.model.puzzle_emb is not None:
                torch.nn.init.normal_(model.model.puzzle_emb.weight)
        return model

    return make


@pytest.fixture
def tiny_batch() -> Callable[..., dict[str, torch.Tensor]]:
    """tiny_batch(config, batch_size): random input_ids, puzzle_ids and labels, some of these ignored."""

    def make(config: TRMConfig, batch_size: int = 3) -> dict[str, torch.Tensor]:
        shape = (batch_size, config.seq_len)
        labels = torch.randint(config.vocab_size, shape)
        labels[:, ::5] = -100
        return {
            "input_ids": torch.randint(config.vocab_size, shape),
            "puzzle_ids": torch.arange(batch_size) % config.num_puzzles,
            "labels": labels,
        }

    return make


@pytest.fixture
def small_sudoku() -> Callable[..., PuzzleSet]:
    """small_sudoku(count): 4x4 Sudoku that fit TINY, from relabelled digits, about half of the cells blank.

    Made without the code under test; three unequal sources.
    """

    def make(count: int) -> PuzzleSet:
        random, blank = np.random.RandomState(7), 1
        solved = np.array([1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1])
        digits = np.stack([random.permutation(4) + 2 for _ in range(count)])  # token ids 2..5
        labels = digits[:, solved - 1].astype(np.uint8)
        inputs = np.where(random.rand(count, 16) < 0.5, blank, labels).astype(np.uint8)
        sources = np.array(["easy", "hard", "middling"])[random.choice(3, count, p=[0.5, 0.1, 0.4])]
        ratings = random.randint(0, 40, count).astype(np.int32)
        return PuzzleSet("sudoku", inputs, labels, sources, ratings, GridProcessor("sudoku", grid_shape=(4, 4)))

    return make


# A small Sudoku recipe on the shipped sample.
TINY_RECIPE: dict[str, Any] = {
    "block_operators": ["mamba2", "mlp_t", "mlp"],
    "hidden_size": 32,
    "mlp_expansion": 2,
    "mlp_multiple_of": 32,
    "mamba_d_state": 8,
    "mamba_expand": 1,
    "mamba_head_dim": 8,
    "puzzle_prefix_len": 2,
    "H_cycles": 2,
    "L_cycles": 2,
    "halt_max_steps": 4,
    "halt_bias": 0.0,
    "task": "sudoku",
    "validation_puzzles": 8,
    "test_puzzles": 8,
    "train_steps": 16,
    "batch_size": 8,
    "optimiser": "muon",
    "learning_rate": 0.001,
    "lr_schedule": "cosine",
    "warmup_steps": 2,
    "log_every": 2,
    "eval_every": 8,
    "checkpoint_every": 3,
    "report_to": ["none"],
    "compile": "no",
    "mixed_precision": "no",
    "cpu": True,
}


@pytest.fixture
def write_recipe(tmp_path: Path):
    """write_recipe(name, **overrides) -> path of a YAML recipe whose output_dir is tmp_path/name."""

    def write(name: str, **overrides: Any) -> Path:
        path = tmp_path / f"{name}.yaml"
        fields = {**TINY_RECIPE, "output_dir": str(tmp_path / name), **overrides}
        path.write_text(yaml.safe_dump(fields), encoding="utf-8")
        return path

    return write
