"""A Mamba-2 sublayer's weights into transformers' Mamba2Mixer and mamba_ssm.Mamba2 and back: the same function."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Mamba2Config
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer, Mamba2Model

from modeling_trm import TRMConfig, TRMModel
from modeling_trm.conversion.checkpoint_file import ConversionError
from modeling_trm.conversion.mamba2 import (
    check_mamba_ssm_arguments,
    check_mixer_config,
    give_sublayer,
    load_sublayer,
    mamba_ssm_arguments,
    mixer_config,
    sublayer_shapes,
    take_sublayer,
)
from modeling_trm.mamba2_trm import Mamba2

SMALL = {"block_operators": ["mamba2"], "hidden_size": 32, "mamba_d_state": 12, "mamba_head_dim": 16}
# What mamba_ssm.Mamba2(d_model=512) of mamba-ssm 2.3 registers; it needs a CUDA compiler to install.
MAMBA_SSM_512 = {
    "dt_bias": (16,),
    "A_log": (16,),
    "D": (16,),
    "in_proj.weight": (2320, 512),
    "conv1d.weight": (1280, 1, 4),
    "conv1d.bias": (1280,),
    "norm.weight": (1024,),
    "out_proj.weight": (512, 1024),
}
LENGTHS = (2, 97, 300)  # one chunk twice, several; with one position A_log has no gradient
# Mamba2Mixer computes its scan in float32 whatever its type, and both sum in another order.
TOLERANCE = 3e-4


def sublayer(**fields: Any) -> tuple[TRMConfig, Mamba2]:
    """None of its weights at the value it starts with."""
    config = TRMConfig(**{**SMALL, **fields})
    operator = TRMModel(config).stack[0]
    with torch.no_grad():
        for parameter in operator.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return config, operator


def outputs_and_gradients(module: torch.nn.Module, x: Tensor) -> dict[str, Tensor]:
    leaf = x.clone().requires_grad_()
    y = module(leaf)
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    return {"y": y, "x": leaf.grad, **{name: parameter.grad for name, parameter in module.named_parameters()}}


def assert_same_function(actual: torch.nn.Module, expected: torch.nn.Module, length: int) -> None:
    x = torch.randn(2, length, 32)
    found, wanted = outputs_and_gradients(actual, x), outputs_and_gradients(expected, x)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        error = (found[name] - tensor).abs().max() / tensor.abs().max()
        assert error < TOLERANCE, f"{name}: {error:.1e}"


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_into_mamba2mixer(length: int, eps: float) -> None:
    config, ours = sublayer(rms_norm_eps=eps)
    theirs = Mamba2Mixer(mixer_config(config), layer_idx=0)
    theirs.load_state_dict(give_sublayer(ours))
    assert_same_function(ours, theirs, length)


@pytest.mark.parametrize("length", LENGTHS)
def test_out_of_a_whole_language_model(length: int) -> None:
    config, ours = sublayer(mamba_d_conv=3)
    sizes = {**mixer_config(config).to_dict(), "num_hidden_layers": 3, "vocab_size": 20}
    model = Mamba2Model(
        Mamba2Config(**{name: sizes[name] for name in sizes if name not in ("layer_types", "model_type")})
    )
    theirs = model.layers[1].mixer
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    state = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items()}
    load_sublayer(ours, take_sublayer(state, "backbone.layers.1.mixer.", config))
    assert_same_function(ours, theirs, length)
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())
    check_mixer_config(model.config, config)


def test_what_is_given_is_a_copy_and_comes_back_bit_exact() -> None:
    config, ours = sublayer()
    given = give_sublayer(ours, "backbone.layers.0.mixer.")
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with torch.no_grad():
        ours.D.zero_()
    load_sublayer(ours, take_sublayer(given, "backbone.layers.0.mixer.", config))
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())


def test_names_shapes_and_arguments_of_mamba_ssm() -> None:
    """By the recorded list; the arguments are those of its constructor."""
    config = TRMConfig.from_preset("mamba2")
    assert sublayer_shapes(config) == MAMBA_SSM_512
    operator = TRMModel(config).stack[0]
    assert {name: tuple(tensor.shape) for name, tensor in operator.state_dict().items()} == MAMBA_SSM_512
    arguments = mamba_ssm_arguments(config)
    sizes = {"d_model": 512, "d_state": 128, "d_conv": 4, "expand": 2, "headdim": 64, "ngroups": 1}
    assert sizes.items() <= arguments.items()
    assert {
        "bias": False,
        "conv_bias": True,
        "D_has_hdim": False,
        "norm_before_gate": False,
    }.items() <= arguments.items()
    check_mamba_ssm_arguments({"d_model": 512}, config)
    check_mamba_ssm_arguments(arguments | {"d_ssm": 1024}, config)
    check_mamba_ssm_arguments({"d_model": 512, "ngroups": 2}, TRMConfig.from_preset("mamba2", mamba_n_groups=2))


WEIGHTS: dict[str, tuple[Any, str]] = {
    "bias": (lambda s: s.update({"in_proj.bias": torch.ones(5)}), "in_proj.bias cannot be taken; biases of the proj"),
    "no convolution bias": (lambda s: s.pop("conv1d.bias"), "conv1d.bias missing; a convolution without bias"),
    "no norm": (lambda s: s.pop("norm.weight"), "norm.weight missing"),
    "a D of each channel": (
        lambda s: s.update({"D": torch.ones(64)}),
        r"D is \[64\], expected \[4\] \(D_has_hdim=True",
    ),
    "another state": (lambda s: s.update({"in_proj.weight": torch.ones(3, 32)}), r"in_proj.weight is \[3, 32\], exp"),
    "nothing": (lambda s: s.clear(), "no weight has this prefix"),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_without_a_counterpart_are_named(case: str) -> None:
    config, ours = sublayer()
    change, message = WEIGHTS[case]
    state = give_sublayer(ours)
    change(state)
    given = {f"m.{name}": tensor for name, tensor in state.items()}
    with pytest.raises(ConversionError, match=message):
        take_sublayer(given, "m.", config)


MIXERS: dict[str, tuple[dict[str, Any], str]] = {
    "limits": ({"time_step_limit": (0.001, 0.1)}, r"time_step_limit=.0\.001, 0\.1. .* allowed: .0\.0, inf"),
    "eps": ({"layer_norm_epsilon": 1e-6}, r"layer_norm_epsilon=1e-06 .* allowed: 1e-05"),
    "bias": ({"use_bias": True}, "use_bias=True"),
    "convolution bias": ({"use_conv_bias": False}, "use_conv_bias=False"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act=gelu"),
    "groups": ({"n_groups": 2}, "n_groups=2"),
    "state": ({"state_size": 64}, "state_size=64"),
}


@pytest.mark.parametrize("case", MIXERS)
def test_settings_of_mamba2mixer_without_a_counterpart_are_named(case: str) -> None:
    config, _ = sublayer()
    fields, message = MIXERS[case]
    base = {"hidden_size": 32, "state_size": 12, "head_dim": 16, "num_heads": 4, "n_groups": 1, "num_hidden_layers": 1}
    check_mixer_config(Mamba2Config(**base), config)
    with pytest.raises(ConversionError, match=message):
        check_mixer_config(Mamba2Config(**{**base, **fields}), config)


ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "limits": ({"dt_limit": (0.001, 0.1)}, r"dt_limit=\(0.001, 0.1\)"),
    "D": ({"D_has_hdim": True}, "D_has_hdim=True"),
    "norm": ({"rmsnorm": False}, "rmsnorm=False"),
    "order": ({"norm_before_gate": True}, "norm_before_gate=True"),
    "part of the width": ({"d_ssm": 512}, "d_ssm=512"),
    "bias": ({"bias": True}, "bias=True"),
    "state": ({"d_state": 64}, "d_state=64 .* allowed: 128"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments_of_mamba_ssm_without_a_counterpart_are_named(case: str) -> None:
    arguments, message = ARGUMENTS[case]
    with pytest.raises(ConversionError, match=message):
        check_mamba_ssm_arguments({"d_model": 512, **arguments}, TRMConfig.from_preset("mamba2"))


def test_configurations_without_a_counterpart_over_there() -> None:
    with pytest.raises(ConversionError, match="mamba_n_groups=2: Mamba2Mixer's norm is not by group"):
        mixer_config(TRMConfig.from_preset("mamba2", mamba_n_groups=2))
    with pytest.raises(ConversionError, match=r"rms_norm_eps=0.001: mamba_ssm.Mamba2 has 1e-05 in its code"):
        mamba_ssm_arguments(TRMConfig.from_preset("mamba2", rms_norm_eps=1e-3))
