"""Weights of one Mamba-2 sublayer out of and into mamba_ssm.Mamba2 and transformers' Mamba2Mixer.

Sources: arXiv 2405.21060; mamba_ssm/modules/mamba2.py; transformers/models/mamba2. The names and shapes are the same in
all three, and the function is if these hold, which is checked as far as weights and arguments tell:

| here                                   | mamba_ssm.Mamba2                 | transformers' Mamba2Mixer              |
|----------------------------------------|----------------------------------|----------------------------------------|
| in_proj, out_proj without a bias       | bias=False                       | use_bias=False                         |
| conv1d with a bias, silu               | conv_bias=True                   | use_conv_bias=True, hidden_act         |
| one D a head                           | D_has_hdim=False                 | always                                 |
| gated norm after the gate, by group    | rmsnorm, norm_before_gate=False  | by group in newer versions: n_groups=1 |
| norm's eps = rms_norm_eps              | always 1e-5                      | layer_norm_epsilon                     |
| time steps without bounds              | dt_limit=(0, inf)                | time_step_limit=(0, inf)               |

Shapes: D hidden, I inner width, G groups, N state, H heads, K width of the convolution.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..configuration_trm import TRMConfig
from ..mamba2_trm import Mamba2
from .checkpoint_file import ConversionError

SSM_NORM_EPS = 1e-5  # mamba_ssm.Mamba2 sets it in its code
NO_LIMIT = (0.0, float("inf"))
# Arguments of other implementations -> the only value that has a counterpart here.
FIXED_SSM: dict[str, Any] = {
    "d_ssm": None,
    "D_has_hdim": False,
    "rmsnorm": True,
    "norm_before_gate": False,
    "bias": False,
    "conv_bias": True,
    "dt_limit": NO_LIMIT,
}
FIXED_MIXER: dict[str, Any] = {
    "use_bias": False,
    "use_conv_bias": True,
    "hidden_act": "silu",
    "time_step_limit": NO_LIMIT,
}


def sublayer_shapes(config: TRMConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the eight weights of one sublayer, here and there."""
    D, inner, H = config.hidden_size, config.mamba_d_inner, config.mamba_n_heads
    channels = inner + 2 * config.mamba_n_groups * config.mamba_d_state
    return {
        "dt_bias": (H,),
        "A_log": (H,),
        "D": (H,),
        "in_proj.weight": (config.mamba_d_in_proj, D),
        "conv1d.weight": (channels, 1, config.mamba_d_conv),
        "conv1d.bias": (channels,),
        "norm.weight": (inner,),
        "out_proj.weight": (D, inner),
    }


def take_sublayer(state_dict: Mapping[str, Tensor], prefix: str, config: TRMConfig) -> dict[str, Tensor]:
    """The weights of one sublayer from the state dict of a language model, for `load_sublayer`.

    Args:
        prefix: what stands in front of their names, for example "backbone.layers.3.mixer."; "" for a module's own.

    Raises:
        ConversionError: weights that are missing, that have no counterpart here (a bias, a D of its own for each
            channel), or that are of another shape, by name.
    """
    found = {name.removeprefix(prefix): tensor for name, tensor in state_dict.items() if name.startswith(prefix)}
    expected = sublayer_shapes(config)
    where = f"sublayer {prefix!r}" if prefix else "the sublayer"
    if not found:
        raise ConversionError(
            f"{where}: no weight has this prefix; the file has {', '.join(list(state_dict)[:3])}, ..."
        )
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if extra:
        hint = "; biases of the projections have no counterpart here" if any("proj.bias" in e for e in extra) else ""
        raise ConversionError(f"{where}: {', '.join(extra)} cannot be taken{hint}; allowed: {', '.join(expected)}")
    if missing:
        hint = "; a convolution without bias, or a norm left out, has no counterpart here"
        raise ConversionError(f"{where}: {', '.join(missing)} missing{hint}")
    for name, shape in expected.items():
        if tuple(found[name].shape) != shape:
            hint = " (D_has_hdim=True: one D a channel has no counterpart here)" if name == "D" else ""
            raise ConversionError(f"{where}: {name} is {list(found[name].shape)}, expected {list(shape)}{hint}")
    return {name: found[name] for name in expected}


def load_sublayer(operator: Mamba2, weights: Mapping[str, Tensor]) -> None:
    """Copy the weights of `take_sublayer` into a sublayer of ours, in its own type and on its own device."""
    operator.load_state_dict(dict(weights))


def give_sublayer(operator: Mamba2, prefix: str = "") -> dict[str, Tensor]:
    """A sublayer's weights under the names of the others, for load_state_dict of a Mamba2 or a Mamba2Mixer."""
    return {f"{prefix}{name}": tensor.detach().clone() for name, tensor in operator.state_dict().items()}


def mamba_ssm_arguments(config: TRMConfig) -> dict[str, Any]:
    """The arguments of mamba_ssm.Mamba2 that give the same function.

    Raises:
        ConversionError: rms_norm_eps, which mamba_ssm cannot be told.
    """
    if config.rms_norm_eps != SSM_NORM_EPS:
        raise ConversionError(f"rms_norm_eps={config.rms_norm_eps}: mamba_ssm.Mamba2 has {SSM_NORM_EPS} in its code")
    return {
        "d_model": config.hidden_size,
        "d_state": config.mamba_d_state,
        "d_conv": config.mamba_d_conv,
        "expand": config.mamba_expand,
        "headdim": config.mamba_head_dim,
        "ngroups": config.mamba_n_groups,
        **FIXED_SSM,
    }


def mixer_config(config: TRMConfig) -> Any:
    """transformers' Mamba2Config whose Mamba2Mixer(..., layer_idx=0) is the same function.

    Raises:
        ConversionError: more than one group: not every version of Mamba2Mixer normalises them apart.
    """
    from transformers import Mamba2Config  # with it comes all of that model's code

    if config.mamba_n_groups != 1:
        raise ConversionError(
            f"mamba_n_groups={config.mamba_n_groups}: Mamba2Mixer's norm is not by group in every version of "
            f"transformers; allowed: 1"
        )
    return Mamba2Config(
        hidden_size=config.hidden_size,
        state_size=config.mamba_d_state,
        conv_kernel=config.mamba_d_conv,
        expand=config.mamba_expand,
        head_dim=config.mamba_head_dim,
        num_heads=config.mamba_n_heads,
        n_groups=1,
        layer_norm_epsilon=config.rms_norm_eps,
        num_hidden_layers=1,
        **FIXED_MIXER,
    )


def check_mixer_config(theirs: Any, config: TRMConfig) -> None:
    """Whether a Mamba2Config is of the same function as our configuration, weights apart.

    Raises:
        ConversionError: the first field that is not, with what it must be.
    """
    ours = mixer_config(config)
    sizes = "hidden_size state_size conv_kernel expand head_dim num_heads n_groups layer_norm_epsilon".split()
    expected, given = ours.to_dict(), theirs.to_dict()
    for name in (*sizes, *FIXED_MIXER):
        value, wanted = given[name], expected[name]
        same = tuple(value) == tuple(wanted) if name == "time_step_limit" else value == wanted
        if not same:
            raise ConversionError(f"{name}={value} of the Mamba2Config has no counterpart here; allowed: {wanted}")


def check_mamba_ssm_arguments(theirs: Mapping[str, Any], config: TRMConfig) -> None:
    """Whether mamba_ssm.Mamba2(**theirs) is of the same function as our configuration, weights apart.

    Arguments that are not given have mamba_ssm's defaults.

    Raises:
        ConversionError: the first argument that is not, with what it must be.
    """
    defaults = {"d_state": 128, "d_conv": 4, "expand": 2, "headdim": 64, "ngroups": 1} | FIXED_SSM
    given = defaults | dict(theirs)
    for name, wanted in mamba_ssm_arguments(config).items():
        value = given.get(name)
        if name == "d_ssm" and value == config.mamba_d_inner:  # all of the inner width, as None
            continue
        if (tuple(value) if isinstance(value, list) else value) != wanted:
            raise ConversionError(f"{name}={value} of mamba_ssm.Mamba2 has no counterpart here; allowed: {wanted}")
