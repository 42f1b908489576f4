"""One Mamba-2 layer against other implementations with the same weights: transformers' and, on CUDA, mamba_ssm's.

On CUDA our layer is there twice, in PyTorch and with the Triton kernel (ssd_backend="triton").

Source: arXiv 2405.21060. Forward, and forward with the gradients of input and weights; both are compared beforehand.
Shapes: B batch, L positions, D hidden.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

from ..compiling_trm import can_compile
from ..configuration_trm import TRMConfig
from ..conversion.mamba2 import give_sublayer, mamba_ssm_arguments, mixer_config
from ..mamba2_trm import Mamba2
from ..modeling_trm import TRMModel
from ..utils.flops import mamba2_flops
from .measure import Check, Group, Line, Skipped, compare
from .settings import Settings, preset_config
from .ssd import ssd_missing

OURS = "modeling_trm"
# Of outputs and gradients. Mamba2Mixer computes its scan in float32 whatever its type; autocast rounds elsewhere too.
TOLERANCES = {"float32": 3e-4, "bfloat16": 6e-2}
THEIR_CHUNK = 256  # chunk_size of Mamba2Config
THEIR_COPIES = 12  # of an array [positions of a chunk, positions, heads] that lie in memory at a time
MOST_BYTES = 2e9  # that Mamba2Mixer may take on a CPU
CHECKED = 2  # rows whose answers are compared


def groups(settings: Settings) -> Iterator[Group]:
    if settings.device.type != "cuda":
        reason = f"runs on CUDA alone, the device is {settings.device}"
        yield Group(skipped=[Skipped("mamba_ssm.Mamba2", reason)])
    for length in settings.lengths:
        config = preset_config("mamba2", length, ssd_backend="torch")
        for batch_size in settings.batch_sizes:
            excess = settings.excess(3 * batch_size * mamba2_flops(config)) or _memory_excess(
                config, batch_size, settings
            )
            if excess is not None:
                yield Group(skipped=[Skipped(f"L {length}, batch {batch_size}", excess)])
                continue
            for dtype in settings.dtypes:
                yield _group(settings, config, batch_size, dtype)


def _memory_excess(config: TRMConfig, batch_size: int, settings: Settings) -> str | None:
    chunks = -(-config.num_positions // THEIR_CHUNK)
    needed = 4 * THEIR_COPIES * batch_size * chunks * THEIR_CHUNK**2 * config.mamba_n_heads
    if settings.device.type != "cpu" or needed <= MOST_BYTES:
        return None
    return f"transformers' Mamba2Mixer would take about {needed / 1e9:.0f} GB"


def _group(settings: Settings, config: TRMConfig, batch_size: int, dtype: str) -> Group:
    skipped: list[Skipped] = []
    layers = _layers(settings, config, skipped)
    torch.manual_seed(0)
    x_BLD = torch.randn(batch_size, config.num_positions, config.hidden_size, device=settings.device)
    labels = {"L": config.num_positions, "batch": batch_size, "dtype": dtype}
    cost = batch_size * mamba2_flops(config)
    lines = []
    for work, make, factor in (("forward", _forward, 1), ("forward and backward", _backward, 3)):
        for name, layer in layers.items():
            call = make(layer, x_BLD, settings, dtype)
            lines.append(Line({"work": work, "layer": name, **labels}, call, factor * cost, profile=True))
    return Group(lines, list(_checks(layers, x_BLD[:CHECKED], settings, dtype)), skipped)


def _layers(settings: Settings, config: TRMConfig, skipped: list[Skipped]) -> dict[str, nn.Module]:
    """Ours first; all with its weights."""
    torch.manual_seed(0)
    ours = _layer(config)
    with torch.no_grad():
        for parameter in ours.parameters():  # D and the norm start at one, as they do over there
            parameter.add_(0.01 * torch.randn_like(parameter))
    weights = give_sublayer(ours)
    own = {OURS: ours}
    if settings.device.type == "cuda":
        reason = ssd_missing("triton", settings.device)
        if reason is None:
            own[f"{OURS}, Triton"] = _ours(config, weights, "triton")
        else:
            skipped.append(Skipped(f"{OURS}, Triton", reason))
    layers: dict[str, nn.Module] = dict(own)
    if "compiled" in settings.engines and can_compile(settings.device):
        for name, layer in own.items():
            layers[f"{name}, compiled"] = _ours(config, weights, layer.config.ssd_backend)
            layers[f"{name}, compiled"].compile()
    layers["transformers Mamba2Mixer"] = _with(weights, Mamba2Mixer(mixer_config(config), layer_idx=0))
    if settings.device.type == "cuda":
        try:
            from mamba_ssm import Mamba2 as SSMMamba2
        except ImportError as error:
            skipped.append(Skipped("mamba_ssm.Mamba2", f"does not import: {error}"))
        else:
            layers["mamba_ssm.Mamba2"] = _with(weights, SSMMamba2(**mamba_ssm_arguments(config)))
    return {name: layer.to(settings.device) for name, layer in layers.items()}


def _layer(config: TRMConfig) -> Mamba2:
    layer = TRMModel(config).stack[0]
    assert isinstance(layer, Mamba2)  # for the type checker
    return layer


def _ours(config: TRMConfig, weights: dict[str, Tensor], backend: str) -> Mamba2:
    layer = _layer(TRMConfig(**{**config.to_dict(), "ssd_backend": backend}))
    layer.load_state_dict(weights)
    return layer


def _with(weights: dict[str, Tensor], layer: nn.Module) -> nn.Module:
    layer.load_state_dict(weights)
    return layer


def _forward(layer: nn.Module, x_BLD: Tensor, settings: Settings, dtype: str) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with torch.no_grad(), settings.precision(dtype):
            return layer(x_BLD)

    return run


def _backward(layer: nn.Module, x_BLD: Tensor, settings: Settings, dtype: str) -> Callable[[], dict[str, Tensor]]:
    return partial(outputs_and_gradients, layer, x_BLD, settings, dtype)


def outputs_and_gradients(layer: nn.Module, x_BLD: Tensor, settings: Settings, dtype: str) -> dict[str, Tensor]:
    """y, the gradient of x, and those of the weights by name, for a fixed gradient of y."""
    leaf = x_BLD.detach().requires_grad_()
    with settings.precision(dtype):
        y_BLD = layer(leaf)
    y_BLD.backward(x_BLD.flip(1).to(y_BLD.dtype))
    found = {"y": y_BLD.detach(), "x": leaf.grad}
    found |= {name: parameter.grad for name, parameter in layer.named_parameters()}
    layer.zero_grad(set_to_none=True)
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _checks(layers: dict[str, nn.Module], x_BLD: Tensor, settings: Settings, dtype: str) -> Iterator[Check]:
    """Each other layer against the first: the largest difference of all outputs and gradients."""
    (_, ours), *others = layers.items()
    expected = outputs_and_gradients(ours, x_BLD, settings, dtype)
    for name, layer in others:
        found = outputs_and_gradients(layer, x_BLD, settings, dtype)
        where = f"{name}, L {x_BLD.shape[1]}, {dtype}"
        checks = [
            compare(f"{where}: {what}", found[what], tensor, TOLERANCES[dtype]) for what, tensor in expected.items()
        ]
        yield max(checks, key=lambda check: check.error)
