"""An exported supervision step computes what the model computes: torch.export's program and the ONNX graph."""

import logging
import warnings
from pathlib import Path

import onnx
import pytest
import torch

from modeling_trm import OPERATORS
from modeling_trm.exporting import checking, onnx_step
from modeling_trm.exporting.programs import Step, example_inputs, export_step, quiet, save_program
from modeling_trm.layers_trm import Operator
from tests.conftest import FEW

# The two cycle counts differ, so that a swap of the loops shows.
CYCLES = {"H_cycles": 2, "L_cycles": 3}
# Each operator once, and what changes its graph: most of the time goes into translating operators.
GRAPHS = {
    "attention": {"block_operators": ["attention", "mlp"]},
    "one latent": {"block_operators": ["attention", "conv2d", "conv_mlp"], "num_latents": 1},
    "mamba3": {"block_operators": ["mamba3"]},
    "delta": {"block_operators": ["delta", "mlp_t"]},
    "several chunks and groups": {
        "block_operators": ["mamba2"],
        "seq_len": 300,
        "mamba_n_groups": 2,
        "mamba_d_conv": 3,
    },
    "gate, norm and learned positions": {
        "block_operators": ["mlp_t", "mlp"],
        "mlp_t_norm": "channels",
        "mlp_gate": "normalized",
        "mlp_gate_bias": 1.0,
        "position_embedding": "learned",
    },
    "symbols without a prefix": {
        "block_operators": ["mamba2", "attention", "axial", "symbols"],
        "axial_lines": ["rows", "columns", "boxes"],
        "symbol_fields": True,
        "scan_orders": ["transposed-reversed"],
        "position_embedding": "rope2d",
        "puzzle_prefix_len": 0,
        "num_puzzles": 1,
    },
    "symbols and what a puzzle says of each": {
        "block_operators": ["symbols"],
        "symbol_fields": True,
        "puzzle_conditioning": "cells",
        "puzzle_symbol_width": 4,
    },
}
# The program repeats the stack; every pass of it is traced anew.
PROGRAMS = {
    "two latents": {"block_operators": ["mamba2", "attention", "mlp_t", "mlp"], "H_cycles": 2},
    "one latent": {"block_operators": ["mamba3", "delta", "conv_mlp", "conv2d"], "num_latents": 1},
    "symbols": GRAPHS["symbols without a prefix"],
}


@pytest.mark.parametrize("cases", [GRAPHS, PROGRAMS], ids=["graphs", "programs"])
def test_every_operator_is_in_a_case(cases) -> None:
    assert {name for overrides in cases.values() for name in overrides["block_operators"]} == OPERATORS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("overrides", GRAPHS.values(), ids=GRAPHS)
def test_the_onnx_graph_equals_the_model(overrides, tiny_model, tmp_path: Path, capfd) -> None:
    model = tiny_model("trm-attn", **CYCLES, **overrides).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    path = tmp_path / "step.onnx"
    onnx_step.save(onnx_step.step_graph(model), path)
    assert capfd.readouterr() == ("", "")
    onnx.checker.check_model(path, full_check=True)
    assert_close_to_the_model(model, checking.onnx_runner(path))

    graph = onnx.load(path).graph
    assert [value.name for value in graph.input][2:] == ["z_H", "z_L"][: model.config.num_latents]
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in graph.input} == {"batch"}
    weights = sum(value.numel() for value in model.parameters())
    stored = sum(onnx.numpy_helper.to_array(weight).size for weight in graph.initializer)
    # Each weight once; what is more are constants such as the decay's mask and the rotary tables, less is unused.
    assert weights * 0.9 < stored < weights + 20 * model.config.num_positions**2
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()

    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert value.equal(before[name]), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # torch 2.9, when it reads a .pt2
@pytest.mark.parametrize("overrides", PROGRAMS.values(), ids=PROGRAMS)
def test_the_program_equals_the_model(overrides, tiny_model, tmp_path: Path, capfd) -> None:
    model = tiny_model("trm-attn", **FEW | overrides).train()
    program = export_step(model)
    save_program(program, tmp_path / "step.pt2")
    assert capfd.readouterr() == ("", "")
    assert_close_to_the_model(model, checking.program_runner(tmp_path / "step.pt2"))
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    model(*example_inputs(model)[:2]).halt_logits.sum().backward()  # the model still trains
    assert model.q_head.weight.grad is not None


def assert_close_to_the_model(model, run) -> None:
    """Over 4 steps, from the model's own latents at each: 1e-4 of the largest magnitude, float32."""
    for batch_size in (1, 4):
        inputs = example_inputs(model, batch_size)
        for _ in range(4):
            with torch.no_grad():
                expected = model(inputs[0], puzzle_ids=inputs[1], state=_state(inputs[2:]))
            values = [expected.logits, expected.halt_logits, *(z for z in expected.state if z is not None)]
            for found, wanted in zip(run(inputs), values, strict=True):
                scale = max(1.0, float(wanted.abs().max()))
                torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * scale)
            inputs = (*inputs[:2], *values[2:])


def _state(latents):
    from modeling_trm import RecursionState

    return RecursionState(latents[0], latents[1] if len(latents) > 1 else None)


@pytest.mark.slow
def test_a_model_for_cuda_kernels_is_exported_and_checked_without_them(tiny_model, tmp_path: Path) -> None:
    operators = {"block_operators": ["mamba2", "attention"], "mamba_head_dim": 8}
    model = tiny_model("trm-attn", ssd_backend="cuda", attention_backend="cudnn", **operators)
    onnx_step.save(onnx_step.step_graph(model), tmp_path / "step.onnx")
    checking.check(model, checking.onnx_runner(tmp_path / "step.onnx"))
    with pytest.raises(RuntimeError, match="ssd_backend='cuda' cannot be used"):  # the model stays as it is
        model(*example_inputs(model)[:2])


class Doubled(Operator):
    """A user's operator with a weight of its own and a position-wise sum."""

    def __init__(self, config) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(config.hidden_size) * 2)

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        return x_BLD.cumsum(1).tanh() * self.weight


@pytest.mark.slow
def test_an_operator_of_ones_own_is_exported(tiny_model, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(OPERATORS, "doubled", Doubled)
    model = tiny_model("trm-attn", block_operators=["doubled"])
    onnx_step.save(onnx_step.step_graph(model), tmp_path / "step.onnx")
    assert_close_to_the_model(model, checking.onnx_runner(tmp_path / "step.onnx"))


@pytest.mark.slow
def test_what_is_too_large_for_one_file_keeps_its_weights_beside_it(tiny_model, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(onnx_step, "LARGEST_FILE", 10_000)
    model = tiny_model("trm-attn", block_operators=["mlp"])
    onnx_step.save(onnx_step.step_graph(model), tmp_path / "step.onnx")
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes.keys() == {"step.onnx", "step.onnx.weights"}
    assert sizes["step.onnx.weights"] > 10_000
    assert_close_to_the_model(model, checking.onnx_runner(tmp_path / "step.onnx"))


def model_runner(model, change):
    """The model itself as an export, with one thing changed."""

    def run(inputs):
        with torch.no_grad():
            return change(list(Step(model)(*inputs)))

    return run


def nudged(index: int, amount: float):
    def change(outputs):
        outputs[index] = outputs[index] + amount
        return outputs

    return change


def test_the_check_knows_a_right_step_from_a_wrong_one(tiny_model) -> None:
    model = tiny_model("trm-mlp-t")
    found = checking.check(model, model_runner(model, lambda outputs: outputs))
    assert found == {"one_step": 0.0, "chained": 0.0, "tolerance_of_one_step": checking.TOLERANCE}
    small = checking.check(model, model_runner(model, nudged(1, 1e-5)))
    assert 0 < small["one_step"] < checking.TOLERANCE
    for index in range(4):
        with pytest.raises(checking.ExportError, match=r"differs from PyTorch's by .* allowed: 1e-04"):
            checking.check(model, model_runner(model, nudged(index, 0.01)))
        with pytest.raises(checking.ExportError, match="differs from PyTorch's by inf"):
            checking.check(model, model_runner(model, nudged(index, float("nan"))))
    with pytest.raises(checking.ExportError, match="by inf"):
        checking.check(model, model_runner(model, lambda outputs: [outputs[0][:, :-1], *outputs[1:]]))


def test_a_chained_error_grows_where_that_of_one_step_does_not(tiny_model) -> None:
    model = tiny_model("trm-mlp-t")
    found = checking.differences(model, model_runner(model, nudged(2, 1e-5)))
    assert found["one_step"] < 2e-5 < found["chained"]


def test_a_step_that_multiplies_rounding_is_measured_by_pytorchs_own(tiny_model) -> None:
    model = tiny_model("trm-mlp-t", H_cycles=5, L_cycles=6)
    step = Step(model)

    def rounded_otherwise(inputs, error=2.0**-22):
        input_ids, puzzle_ids, z_H, z_L = inputs
        with torch.no_grad():
            return list(step(input_ids, puzzle_ids, z_H * (1 + error), z_L))

    found = checking.check(model, rounded_otherwise)
    assert checking.TOLERANCE < found["one_step"] < found["tolerance_of_one_step"]
    assert found["tolerance_of_one_step"] == checking.ROUNDING_FACTOR * checking.rounding(model)
    assert checking.rounding(tiny_model("trm-mlp-t", H_cycles=1, L_cycles=1)) < 1e-5
    with pytest.raises(checking.ExportError, match="differs from PyTorch's by"):
        checking.check(model, lambda inputs: rounded_otherwise(inputs, 1e-3))


def test_quiet_silences_and_restores(caplog) -> None:
    with quiet():
        warnings.warn("not for users", FutureWarning, stacklevel=1)
        logging.getLogger("torch.onnx").warning("not for users")
    assert not caplog.records
    logging.getLogger("tests").warning("for users")
    assert [record.message for record in caplog.records] == ["for users"]
    with pytest.warns(FutureWarning, match="for users"):
        warnings.warn("for users", FutureWarning, stacklevel=1)


def test_ids_out_of_range_are_still_named_outside_of_a_trace(tiny_model) -> None:
    model = tiny_model("trm-mlp-t")
    with pytest.raises(ValueError, match=r"input_ids holds 6\.\.6; allowed: 0\.\.5"):
        model(torch.full((1, 16), 6))


@pytest.mark.parametrize("name", ["answer_feedback", "num_step_embeddings"])
def test_a_model_that_carries_more_than_latents_is_refused(name: str, tiny_model) -> None:
    model = tiny_model("trm-attn", **{name: 1 if name == "num_step_embeddings" else True})
    for exported in (export_step, onnx_step.step_graph):
        with pytest.raises(ValueError, match=f"{name}=.* cannot be exported"):
            exported(model)
