"""Settings of a run in which the models are tiny, and a public code that computes the published formulas."""

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling_trm import TRMConfig
from modeling_trm.benchmarking import (
    growth,
    mamba2_layer,
    peak,
    reference,
    reference_training,
    run,
    ssd,
    supervision,
    training_step,
)
from modeling_trm.benchmarking.measure import Measured
from modeling_trm.benchmarking.settings import Settings
from tests.conftest import TINY

DEFAULTS: dict[str, Any] = {
    "device": torch.device("cpu"),
    "presets": ["trm-attn", "tr-mamba2mlpt"],
    "lengths": [20],
    "batch_sizes": [1, 2],
    "dtypes": ["float32"],
    "engines": ["eager"],
    "rounds": 2,
    "max_tflop": None,
    "rows": [30, 10],
    "table_batch": 4,
    "reference": None,
    "checkpoint": None,
    "puzzles": None,
    "at_a_time": 32,
    "halt": 0.5,
    "ssd_backends": ["auto"],
    "seconds": math.inf,
    "mamba_ssm": None,
}
# Its classes and names; the function is the oracle's.
PUBLIC_CODE = """
import torch
from tests.oracles import reference

class TinyRecursiveReasoningModel_ACTV1(torch.nn.Module):
    def __init__(self, fields):
        super().__init__()
        self.arch, self.inner = fields, torch.nn.Module()

    def load_state_dict(self, state):
        self.state = {name.removeprefix("inner."): torch.nn.Parameter(tensor) for name, tensor in state.items()}

    def named_parameters(self):
        fixed = ("H_init", "L_init", "puzzle_emb.weights")  # buffers over there
        return ((f"inner.{name}", tensor) for name, tensor in self.state.items() if name not in fixed)

    def initial_carry(self, batch):
        return None

    def forward(self, carry, batch):
        inputs = batch["inputs"].long()
        rows = batch["puzzle_identifiers"].tolist()
        _, logits, halts, carry = reference.supervision_step(self.state, self.arch, inputs, rows, inputs, carry)
        return carry, {"logits": SCALE * logits, "q_halt_logits": halts}
"""
PUBLIC_LOSSES = """
import torch
from tests.oracles import reference

class ACTLossHead(torch.nn.Module):
    def __init__(self, model, loss_type):
        super().__init__()
        assert loss_type == "stablemax_cross_entropy"
        self.model, self.initial_carry = model, model.initial_carry

    def named_parameters(self):
        return ((f"model.{name}", tensor) for name, tensor in self.model.named_parameters())

    def forward(self, carry, batch, return_keys):
        inputs, labels = batch["inputs"].long(), batch["labels"].long()
        rows = batch["puzzle_identifiers"].tolist()
        loss, *_, carry = reference.supervision_step(self.model.state, self.model.arch, inputs, rows, labels, carry)
        return carry, SCALE * len(inputs) * loss, {}, {}, True  # the oracle's is a mean
"""


def measured(name: str, settings: Settings) -> Measured:
    """What the part finds."""
    report: dict[str, Any] = {}
    run.run_parts([name], settings, report, lambda _: None)
    return Measured(**report["parts"][name])


@pytest.fixture
def settings() -> Callable[..., Settings]:
    return lambda **fields: Settings(**DEFAULTS | fields)


@pytest.fixture
def tiny_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts' models at the sizes of TINY; the public code's inner widths are multiples of 256."""

    def preset_config(preset: str, length: int, **overrides: Any) -> TRMConfig:
        sizes = {**TINY, "seq_len": length - TINY["puzzle_prefix_len"], "mlp_multiple_of": 256, "num_puzzles": 1}
        return TRMConfig.from_preset(preset, **sizes | overrides)

    for part in (growth, mamba2_layer, reference, reference_training, ssd, supervision, training_step):
        monkeypatch.setattr(part, "preset_config", preset_config)
    monkeypatch.setitem(peak.SIZES, "cpu", 64)
    monkeypatch.setattr(growth, "LENGTHS", (20, 30))
    monkeypatch.setattr(growth, "BATCH_SIZES", (1, 3))
    monkeypatch.setattr(growth, "STEPS", (1, 2))
    monkeypatch.setattr(reference, "LENGTH", 20)
    monkeypatch.setattr(reference_training, "LENGTH", 20)
    monkeypatch.setattr(reference, "BATCH_SIZES", (2, 3))


@pytest.fixture
def public_code(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """public_code(scale): a checkout whose logits and loss are `scale` times the published ones."""

    def write(scale: float = 1.0) -> Path:
        folder = tmp_path / "checkout" / "models" / "recursive_reasoning"
        folder.mkdir(parents=True)
        folder.joinpath("trm.py").write_text(f"SCALE = {scale}\n{PUBLIC_CODE}", encoding="utf-8")
        folder.with_name("losses.py").write_text(f"SCALE = {scale}\n{PUBLIC_LOSSES}", encoding="utf-8")
        return tmp_path / "checkout"

    def forget() -> None:
        for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
            del sys.modules[name]

    forget()
    yield write
    forget()
