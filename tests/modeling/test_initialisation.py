"""Parameter counts, to the unit, and the statistics of a fresh model, which survive post_init and loading."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modeling_trm import OPERATORS, PRESETS, TRMConfig, TRMForGridReasoning, TRMModel

# arXiv 2510.04871 and 2602.12078: vocabulary 12 on 30x30 or 11 on 9x9, puzzle table apart. The sums, of 512 channels:
# attention 4 * 512^2; SwiGLU 3 * 512 * 1536; MLP-t on 97 positions 3 * 97 * 512; embedding, output and halting heads
# 2 * vocabulary * 512 + 2 * 512 + 2; Mamba-2 512 * (2 * 1024 + 2 * 128 + 16) + 5 * 1280 + 3 * 16 + 1024 + 1024 * 512.
COUNTS = [
    ("trm-attn", 12, 900, 6_829_058),
    ("tr-mamba2attn", 12, 900, 6_860_386),
    ("trm-mlp-t", 11, 81, 5_028_866),
    ("tr-mamba2mlpt", 11, 81, 5_959_778),
    ("mamba2", 12, 900, 8_171_106),
    ("compact", 12, 900, 860_162),  # 0.86 M, as published; 256 channels, 768 inside the SwiGLU, 6 step embeddings
    ("medium", 12, 900, 6_829_058 + 6 * 512),
    ("tr-mamba3attn", 12, 900, 6_860_386 + 2 * (1_749_280 - 1_719_600)),
    ("tr-mamba3mlpt", 11, 81, 5_959_778 + 2 * (1_749_280 - 1_719_600)),
    ("tr-deltaattn", 12, 900, 6_860_386 + 2 * (1_585_292 - 1_719_600)),
    ("tr-deltamlpt", 11, 81, 5_959_778 + 2 * (1_585_292 - 1_719_600)),
    ("urm", 12, 900, 4 * (1_048_576 + 2_359_296 + 3 * 1536) + 2 * 12 * 512 + 2 * 512 + 2),
    # 128 channels: attention and symbols 4 * 128^2 each, SwiGLU 3 * 128 * 512; 4 roles, 3 outputs of a field, halting.
    ("symbols-attn", 11, 81, 2 * (2 * 65_536 + 196_608) + 7 * 128 + 2 * 128 + 2),
    # Mamba-2 128 * (2 * 256 + 2 * 32 + 8) + 5 * 320 + 3 * 8 + 256 + 256 * 128.
    ("symbols-mamba2", 11, 81, 2 * (109_400 + 65_536 + 196_608) + 7 * 128 + 2 * 128 + 2),
]
# Mamba-3: 512 * (2 * 1024 + 2 * 128 + 3 * 16 + 32) + 1024 * 512, biases 2 * 16 * 128, norms 2 * 128, dt_bias and D 32.
# Gated DeltaNet: 512 * (2 * 384 + 2 * 768 + 2 * 6) + 768 * 512, convolutions 4 * (2 * 384 + 768), a norm 128, 2 * 6.
SUBLAYERS = {
    "attention": 1_048_576,
    "mlp": 2_359_296,
    "mamba2": 1_719_600,
    "mlp_t": 3 * 97 * 512,
    "mamba3": 1_749_280,
    "delta": 1_585_292,
    "conv_mlp": 2_359_296 + 3 * 1536,
    "conv2d": 3 * 512 * 512 + 9 * 512,
    "axial": 4 * 512 * 2 * 128,
    "symbols": 1_048_576,
}
TRUNCATED_STD = 0.87962566103423978  # of a unit normal cut off at two standard deviations


def test_every_preset_and_operator_is_counted() -> None:
    assert {preset for preset, *_ in COUNTS} == set(PRESETS)
    assert set(SUBLAYERS) == set(OPERATORS)


@pytest.mark.parametrize(("preset", "vocab_size", "seq_len", "expected"), COUNTS)
def test_parameter_count(preset: str, vocab_size: int, seq_len: int, expected: int) -> None:
    sizes = {"vocab_size": vocab_size, "seq_len": seq_len, "puzzle_prefix_len": 16, "num_puzzles": 1000}
    config = TRMConfig.from_preset(preset, **sizes)
    with torch.device("meta"):
        model = TRMForGridReasoning(config)
    assert model.num_parameters_core() == expected
    assert model.num_parameters_table() == 1000 * config.puzzle_width
    assert sum(p.numel() for p in model.parameters()) == expected + 1000 * config.puzzle_width


@pytest.mark.parametrize("name", OPERATORS)
def test_parameter_count_of_a_sublayer(name: str) -> None:
    with torch.device("meta"):
        operator = OPERATORS[name](TRMConfig(seq_len=81))
    assert sum(p.numel() for p in operator.parameters()) == SUBLAYERS[name]


@pytest.mark.parametrize(
    ("width", "expansion", "multiple", "inner"),
    [(512, 4, 256, 1536), (97, 4, 256, 512), (916, 4, 256, 2560), (32, 2, 8, 48)],
)
def test_inner_width(width: int, expansion: float, multiple: int, inner: int) -> None:
    assert TRMConfig(mlp_expansion=expansion, mlp_multiple_of=multiple).inner_width(width) == inner


def assert_truncated_normal(tensor: Tensor, std: float) -> None:
    """Standard deviation after the cut, the cut itself, and no mean; within four standard errors of the sample."""
    error = tensor.numel() ** -0.5
    assert abs(tensor.std().item() / std - 1) < 4 * error
    assert abs(tensor.mean().item() / std) < 4 * error
    bound = 2 * std / TRUNCATED_STD
    assert tensor.abs().max() <= bound * (1 + 1e-6)
    assert tensor.abs().max() > 0.8 * bound


def assert_fresh(model: TRMForGridReasoning) -> None:
    """arXiv 2510.04871's public code, models/common.py; mamba_ssm.Mamba2 for what a Mamba-2 has of its own."""
    config, special = model.config, {model.q_head, model.model.embed_tokens, model.model.puzzle_emb}
    for module in model.modules():
        if isinstance(module, nn.Linear) and module not in special:
            assert_truncated_normal(module.weight, module.in_features**-0.5)
            assert module.bias is None
    assert_truncated_normal(model.model.embed_tokens.weight, config.hidden_size**-0.5)
    if model.model.embed_positions is not None:
        assert_truncated_normal(model.model.embed_positions.weight, config.hidden_size**-0.5)
    assert model.q_head.weight.eq(0).all()
    assert model.q_head.bias.tolist() == [config.halt_bias] * 2
    assert model.model.puzzle_emb.weight.eq(0).all()
    latents = [latent for latent in (model.model.H_init, model.model.L_init) if latent is not None]
    assert_truncated_normal(torch.cat(latents), config.initial_state_std)
    assert len(latents) == 1 or not torch.equal(*latents)
    for name, parameter in model.named_parameters():
        if name.endswith("dt_bias"):
            dt = nn.functional.softplus(parameter)
            assert (dt > 0.99e-3).all()
            assert (dt < 0.101).all()
        elif name.endswith("A_log"):
            assert (parameter.exp() > (0.999 if "mamba2" in config.block_operators else 0.00099)).all()
            assert (parameter.exp() < 16.01).all()
            assert parameter.std() > 0
        elif name.endswith((".D", "norm.weight", ".B_bias", ".C_bias")):
            assert parameter.eq(1).all()
        elif "conv" in name:
            bound = model.get_submodule(name.rpartition(".")[0]).kernel_size[0] ** -0.5
            assert parameter.abs().max() <= bound
            assert parameter.abs().max() > 0.8 * bound
        elif name.endswith("gate_bias"):
            assert parameter.eq(config.mlp_gate_bias).all()


MEDIUM: dict[str, Any] = {
    "hidden_size": 128,
    "num_puzzles": 5,
    "puzzle_prefix_len": 16,
    "seq_len": 81,
    "mamba_head_dim": 16,
    "mlp_multiple_of": 32,
}
FRESH: dict[str, dict[str, Any]] = {
    "defaults": {},
    "own values": {
        "position_embedding": "learned",
        "mlp_gate_bias": 1.0,
        "halt_bias": -2.5,
        "initial_state_std": 0.25,
        "mamba_d_conv": 3,
    },
}


@pytest.mark.parametrize("values", FRESH)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_fresh_model_has_the_published_statistics(preset: str, values: str) -> None:
    assert_fresh(TRMForGridReasoning(TRMConfig.from_preset(preset, **{**MEDIUM, **FRESH[values]})))


def test_models_of_two_seeds_differ_in_every_random_tensor() -> None:
    one, two = (TRMForGridReasoning(TRMConfig.from_preset("tr-mamba2mlpt", **MEDIUM)).state_dict() for _ in range(2))
    constant = ("q_head.weight", "q_head.bias", "puzzle_emb.weight", ".D", ".norm.weight")
    assert [name for name in one if torch.equal(one[name], two[name])] == [n for n in one if n.endswith(constant)]


@pytest.mark.parametrize("preset", PRESETS)
def test_post_init_does_not_touch_what_is_there(preset: str) -> None:
    model = TRMForGridReasoning(TRMConfig.from_preset(preset, **MEDIUM))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.init_weights()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("preset", PRESETS)
def test_the_trunk_alone_is_initialised_alike(preset: str) -> None:
    config = TRMConfig.from_preset(preset, **MEDIUM)
    model = TRMForGridReasoning(config)
    model.model = TRMModel(config)
    assert_fresh(model)


def test_loading_overwrites_every_initial_value(tmp_path: Path, tiny_model: Callable[..., TRMForGridReasoning]) -> None:
    """Were an init done by hand in _init_weights, it would overwrite what the checkpoint had filled."""
    model = tiny_model("tr-mamba2mlpt", mlp_gate_bias=1.0, position_embedding="learned")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.copy_(torch.randn_like(tensor))
    model.save_pretrained(tmp_path)
    loaded = TRMForGridReasoning.from_pretrained(tmp_path).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded[name], value), name


def test_head_and_positions_start_as_the_config_says() -> None:
    overrides = {"vocab_size": 11, "hidden_size": 96, "block_operators": ["mlp"], "position_embedding": "learned"}
    model = TRMForGridReasoning(TRMConfig(**overrides, position_std=0.1, head_init="embedding"))
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    assert model.lm_head.weight is not model.model.embed_tokens.weight  # trained apart
    assert model.model.embed_positions.weight.std().item() * 96**0.5 == pytest.approx(0.1, rel=0.03)
    reference = TRMForGridReasoning(TRMConfig(**overrides))
    assert not torch.equal(reference.lm_head.weight, reference.model.embed_tokens.weight)
    assert reference.model.embed_positions.weight.std().item() * 96**0.5 == pytest.approx(1.0, rel=0.03)
