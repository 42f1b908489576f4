"""Files of other code that trains the same model: nano-trm's Lightning files, EqR's baseline; EqR itself is refused."""

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modeling_trm import GridProcessor, TRMForGridReasoning
from modeling_trm.conversion.checkpoint_file import ConversionError
from modeling_trm.conversion.from_reference import convert_reference
from tests.conversion.conftest import ATTENTION, SIZES, arch_yaml
from tests.conversion.test_parity import assert_close
from tests.oracles import nano_trm, reference

MLP_T: dict[str, Any] = {
    "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_grid_size": 9, "H_cycles": 2, "L_cycles": 2,
    "N_supervision": 16, "N_supervision_val": 16, "ffn_expansion": 4, "learning_rate": 1e-4, "puzzle_emb_dim": 0,
    "puzzle_emb_len": 0, "rope_theta": 10000, "pos_emb_type": "null", "use_mlp_t": True, "use_conv_swiglu": False,
    "use_board_swiglu": False, "vocab_size": 12, "num_puzzles": 1, "batch_size": 4, "pad_value": 0, "seq_len": 81,
    "output_dir": Path("/run/of/yesterday"), "forward_dtype": None,
}  # fmt: skip
ATTENTIVE = MLP_T | {"use_mlp_t": False, "pos_emb_type": "1d", "num_layers": 1}
TABLE = {"puzzle_emb_dim": 20, "puzzle_emb_len": 3, "num_puzzles": 3}
VARIANTS = {
    "mlp_t": MLP_T,
    "mlp_t with a table": MLP_T | TABLE,
    "attention": ATTENTIVE | {"forward_dtype": torch.bfloat16},
    "attention with a table": ATTENTIVE | TABLE | {"H_cycles": 1, "rope_theta": 100},
    "attention without positions": ATTENTIVE | {"pos_emb_type": None, "ffn_expansion": 2.5},
    "maze": ATTENTIVE | {"vocab_size": 6, "seq_len": 36, "max_grid_size": 6},
    "4 x 4": MLP_T | {"vocab_size": 7, "seq_len": 16, "max_grid_size": 4},
}
SHADOW = "callbacks.EMACallback.shadow"


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """save(hyper, state=...): a file as Lightning writes it, with the average that nano-trm's callback keeps."""

    def save(hyper: dict[str, Any], state: dict[str, torch.Tensor] | None = None, **changes: Any) -> Path:
        state = nano_trm.random_state_dict(hyper) if state is None else state
        kept = {name: 0.5 * tensor for name, tensor in state.items() if not name.endswith(("_init", "emb.weights"))}
        content = {
            "epoch": 3, "global_step": 9, "pytorch-lightning_version": "2.6.0", "state_dict": state,
            "loops": {"fit_loop": {"state_dict": {}}}, "optimizer_states": [{"state": {0: {"step": torch.ones(())}}}],
            "callbacks": {"EMACallback": {"shadow": kept, "decay": 0.999}}, "hparams_name": "kwargs",
            "hyper_parameters": hyper,
        }  # fmt: skip
        torch.save(content | changes, tmp_path / "last.ckpt")
        return tmp_path / "last.ckpt"

    return save


def convert(path: Path, tmp_path: Path, **arguments: Any) -> tuple[TRMForGridReasoning, GridProcessor]:
    convert_reference(path, tmp_path / "out", **{"entry": "state_dict"} | arguments)
    model = TRMForGridReasoning.from_pretrained(tmp_path / "out", dtype=torch.float64)
    return model, GridProcessor.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize("variant", VARIANTS)
def test_nano_trm_computes_the_same(variant: str, save: Callable[..., Path], tmp_path: Path) -> None:
    """Three carried steps: logits, halting and every gradient, of the token ids that both have."""
    hyper, state = VARIANTS[variant], nano_trm.random_state_dict(VARIANTS[variant])
    model, processor = convert(save(hyper), tmp_path)
    assert processor.task == ("maze" if variant == "maze" else "sudoku")
    assert processor.vocab_size == model.config.vocab_size == hyper["vocab_size"] - (processor.task == "sudoku")
    assert processor.grid_shape == [hyper["max_grid_size"]] * 2
    kept = [token for token in range(hyper["vocab_size"]) if processor.task == "maze" or token != 1]
    ours = torch.randint(1, processor.vocab_size, (2, hyper["seq_len"]))
    theirs, puzzles = torch.tensor(kept)[ours], torch.tensor([2, 1]) % hyper["num_puzzles"]
    weights = {name: tensor.double().requires_grad_() for name, tensor in state.items()}
    carry, carried = None, None
    for _ in range(3):
        logits, halts, carry = nano_trm.step(weights, hyper, theirs, puzzles.tolist(), carry)
        out = model(ours, puzzle_ids=puzzles, state=carried)
        carried = out.state
        assert_close(out.logits, logits[..., kept], 1e-9, "logits")
        assert_close(out.halt_logits, halts, 1e-9, "halt logits", at_least=1.0)
    direction = torch.randn(logits[..., kept].shape, dtype=torch.float64)
    ((out.logits * direction).sum() + out.halt_logits.sum()).backward()
    ((logits[..., kept] * direction).sum() + halts.sum()).backward()
    own = {name: parameter.grad.to_dense() for name, parameter in model.named_parameters()}
    assert_close(own["model.embed_tokens.weight"], weights["input_embedding.embedding_weight"].grad[kept], 1e-9, "rows")
    assert_close(own["lm_head.weight"], weights["lm_head.weight"].grad[kept], 1e-9, "answers")
    assert_close(own["q_head.weight"][:1], weights["q_head.weight"].grad, 1e-9, "halting")
    assert not own["q_head.weight"][1].any()
    if hyper["puzzle_emb_dim"]:
        expected = weights["puzzle_emb.weights"].grad
        assert_close(own["model.puzzle_emb.weight"][:, : expected.shape[1]], expected, 1e-9, "table")
    for name in (name for name in weights if name.startswith("lenet.")):
        _, _, layer, module, part, _ = name.split(".")
        ours_named = f"model.stack.{2 * int(layer) + (module == 'mlp')}.{part}.weight"
        assert_close(own[ours_named], weights[name].grad, 1e-9, name)


def test_nano_trm_average_and_facts(save: Callable[..., Path], tmp_path: Path) -> None:
    hyper = MLP_T | TABLE
    path, state = save(hyper), nano_trm.random_state_dict(hyper)
    with pytest.raises(ConversionError, match=f"2 state dicts: state_dict, {SHADOW}; say which"):
        convert_reference(path, tmp_path / "out")
    model, _ = convert(path, tmp_path, entry=SHADOW)
    assert torch.equal(model.lm_head.weight, 0.5 * state["lm_head.weight"][[0, *range(2, 12)]].double())
    assert torch.equal(model.model.L_init, state["z_L_init"].double())
    assert model.config.halt_max_steps == 16 and model.config.block_operators == ["mlp_t", "mlp"] * 2
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "nano-trm: its names and token ids" in card and "token id 1 (the end of a grid" in card
    with pytest.raises(ConversionError, match=r"H_cycles: --H-cycles 3 differs from H_cycles=2 in the file itself"):
        convert_reference(path, tmp_path / "other", entry=SHADOW, options={"H_cycles": 3})


def test_nano_trm_other_grids_keep_their_token_ids(save: Callable[..., Path], tmp_path: Path) -> None:
    """6 x 6: no Sudoku of ours, but a grid over its own characters."""
    hyper = MLP_T | {"vocab_size": 9, "seq_len": 36, "max_grid_size": 6}
    with pytest.raises(ConversionError, match=r"has 9 token ids, and 36 cells: allowed: 6 \(maze\), side \+ 3"):
        convert(save(hyper), tmp_path)
    how: dict[str, Any] = {"task": "grid", "grid_shape": (6, 6), "alphabet": "$.123456"}
    model, processor = convert(save(hyper), tmp_path, **how)
    assert processor.vocab_size == 9
    assert torch.equal(model.lm_head.weight, nano_trm.random_state_dict(hyper)["lm_head.weight"].double())


def test_nano_trm_weights_alone(save: Callable[..., Path], tmp_path: Path) -> None:
    state = nano_trm.random_state_dict(ATTENTIVE)
    torch.save(state, tmp_path / "weights.pt")
    options = {"H_cycles": 2, "L_cycles": 2, "num_heads": 4, "puzzle_emb_len": 0}
    with pytest.raises(ConversionError, match=r"no hyper_parameters that tell pos_emb_type; give the Lightning file"):
        convert(tmp_path / "weights.pt", tmp_path, entry="", options=options)
    model, _ = convert(tmp_path / "weights.pt", tmp_path, entry="", options=options | {"pos_encodings": "rope"})
    assert model.config.position_embedding == "rope" and model.config.num_attention_heads == 4


def convolved(state: dict[str, torch.Tensor], module: str) -> dict[str, torch.Tensor]:
    return state | {f"lenet.layers.0.mlp.{module}.weight": torch.ones(512, 1, 3)}


NANO_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "by row and column": ({"pos_emb_type": "2d"}, r"pos_emb_type='2d' turns by row and column, ours by position alone"),
    "in a frame": ({"seq_len": 121, "max_grid_size": 11}, r"12 token ids, and 121 cells: allowed: .* fills its frame"),
    "ARC": ({"vocab_size": 11, "seq_len": 900, "pad_value": 10}, r"has 11 token ids, and 900 cells: allowed"),
    "a number as text": ({"H_cycles": "2"}, r"H_cycles='2'; allowed: int"),
}


@pytest.mark.parametrize("case", NANO_REFUSED)
def test_nano_trm_what_is_refused(case: str, save: Callable[..., Path], tmp_path: Path) -> None:
    change, message = NANO_REFUSED[case]
    with pytest.raises(ConversionError, match=message):
        convert(save(ATTENTIVE | change), tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("module", "setting"), [("dwconv", "use_conv_swiglu"), ("board_conv", "use_board_swiglu")])
def test_nano_trm_with_convolutions(module: str, setting: str, save: Callable[..., Path], tmp_path: Path) -> None:
    state = convolved(nano_trm.random_state_dict(MLP_T), module)
    with pytest.raises(ConversionError, match=rf"nano-trm with {setting}: a convolution \({module}\)"):
        convert(save(MLP_T, state), tmp_path)


class ModelCarry:
    """The latents that EqR's trainings carry along, a class of its own code (models.eqr)."""

    __module__ = "models.eqr"

    def __init__(self) -> None:
        self.steps = torch.zeros(2)


def eqr_file(path: Path, arch: dict[str, Any], state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> Path:
    """As its save_checkpoint writes it: generators of NumPy and Python, carried latents, the whole configuration."""
    import sys
    import types

    module = types.ModuleType("models.eqr")
    module.ModelCarry = ModelCarry  # type: ignore[attr-defined]
    content = {
        "step": 7, "model": {f"_orig_mod.model.inner.{name}": tensor for name, tensor in state.items()},
        "optimizers": [{"state": {}, "param_groups": []}], "carry": ModelCarry(), "numpy": np.random.get_state(),
        "python": random.getstate(), "rng": {"torch": torch.random.get_rng_state(), "cuda": None},
        "config": {"arch": arch, "lr": 1e-4}, "ema": {"mu": 0.999, "shadow": {
            f"_orig_mod.model.inner.{name}": tensor for name, tensor in state.items() if not name.endswith("_init")
        }},
    }  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "models", types.ModuleType("models"))
        patch.setitem(sys.modules, "models.eqr", module)
        torch.save(content, path)
    return path


WITHOUT_TABLE = ATTENTION | {"puzzle_emb_ndim": 0, "puzzle_emb_len": 0}
BASELINE = {name: value for name, value in arch_yaml(WITHOUT_TABLE).items() if not name.startswith("puzzle_emb")}
BASELINE |= {"name": "trm@TRMModel", "short_name": "TRM", "act_inference": False, "halt_confirm_mode": "consecutive"}


def test_eqr_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file holds more than tensors: that is passed over, and the reason is the model's."""
    state = reference.random_state_dict(WITHOUT_TABLE | SIZES)
    state = {name: tensor for name, tensor in state.items() if not name.endswith("_init")}
    arch = BASELINE | {"name": "eqr@EqRModel", "lambda_": 0.95, "noise_scale": 0.01, "H_init_std": 1.0}
    path = eqr_file(tmp_path / "eqr.pth", arch, state, monkeypatch)
    message = r"of EqR: it starts at random latents, keeps a share of them in every call of its stack and adds noise"
    with pytest.raises(ConversionError, match=re.escape(f"{path}: is a checkpoint ") + message):
        convert_reference(path, tmp_path / "out")
    yaml = tmp_path / "all_config.yaml"
    yaml.write_text("arch: {name: eqr@EqRModel, H_cycles: 3, L_cycles: 6, lambda_: 0.9}", encoding="utf-8")
    torch.save(state | {"H_init": torch.ones(32), "L_init": torch.ones(32)}, tmp_path / "weights.pt")
    with pytest.raises(ConversionError, match=rf"{message}.* \(lambda_=0.9, noise_scale=0.01\)"):
        convert_reference(tmp_path / "weights.pt", tmp_path / "out")


def test_eqr_s_baseline_is_the_references_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """models/trm.py over there: no puzzle table, no prefix; its file tells its settings."""
    state = reference.random_state_dict(WITHOUT_TABLE | SIZES)
    path = eqr_file(tmp_path / "trm.pth", BASELINE, state, monkeypatch)
    facts = convert_reference(path, tmp_path / "out", entry="ema.shadow")
    assert facts["H_cycles"] == "2 (the file itself)" and facts["H_init"].startswith("from entry model")
    model = TRMForGridReasoning.from_pretrained(tmp_path / "out", dtype=torch.float64)
    assert model.config.puzzle_prefix_len == 0
    inputs, labels = torch.randint(1, 11, (2, 81)), torch.randint(2, 11, (2, 81))
    weights = {name: tensor.double() for name, tensor in state.items()}
    loss, logits, halts, _ = reference.supervision_step(weights, WITHOUT_TABLE | SIZES, inputs, [0, 0], labels)
    out = model(inputs, labels=labels)
    for name, actual, expected in (("logits", out.logits, logits), ("halting", out.halt_logits, halts)):
        assert_close(actual, expected, 1e-9, name, at_least=1.0)
    assert_close(out.loss, loss, 2e-7, "loss")
    refused = eqr_file(tmp_path / "2d.pth", BASELINE | {"pos_encodings": "rope2d"}, state, monkeypatch)
    with pytest.raises(ConversionError, match=r"pos_encodings='rope2d'; allowed: rope, learned, none"):
        convert_reference(refused, tmp_path / "no", entry="model")
