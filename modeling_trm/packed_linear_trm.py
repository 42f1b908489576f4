"""Linear layers with the weight laid out once as oneDNN wants it (x86 CPUs): in float32, in bfloat16, in 8 bits.

The packed forms of the operators are made of them (Operator.packed; the engines are in engines_trm). Both layers are
used in two steps, so that layers which read the same activations prepare them once: `layer.product(layer.prepare(x))`,
or `layer(x)`. In the place of `product`, `silu` gives its silu and `times` multiplies it by a tensor of its shape;
PackedLinear does so while the numbers are at hand, with no pass of their own and no rounding in between.

Shapes: x [..., I], weight [O, I], bias [O] -> [..., O].
"""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS = 1024  # that a product is laid out for
HALF = 128  # activations are unsigned bytes around it: oneDNN has no fast product of two signed ones
LARGEST = 127

BARE = (torch.Tensor, nn.Parameter, type(None))
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

Layer = Callable[[Tensor, Tensor | None], Any]  # weight [O, I], bias [O] -> a PackedLinear or an Int8Linear


class PackedLinear(nn.Module):
    """The product in float32 or bfloat16."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        own = weight.detach().to(dtype).contiguous()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(own, ROWS)
        self.bias = None if bias is None else bias.detach().to(dtype)

    def prepare(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)

    def product(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")

    def silu(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "swish", [], "")

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise.binary(x, factor, self.packed, self.bias, "mul")

    def forward(self, x: Tensor) -> Tensor:
        return self.product(self.prepare(x))


class Bytes(NamedTuple):
    """Activations in 8 bits: x = scales * (values - 128); values uint8 [..., I], scales float32 [..., 1]."""

    values: Tensor
    scales: Tensor


class Int8Linear(nn.Module):
    """The product of bytes, summed in 32 bits: y = s_x s_w sum x_q w_q + bias, x_q = round(x / s_x), s_x = max|x|/127.

    A scale for each row of the weight and for each position of x (rounded to `dtype`): no answer depends on its
    neighbours in a batch. An infinite entry makes its position NaN.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        wide = weight.detach().float()
        self.weight_scales = _scales(wide)[:, 0].contiguous()
        values = (wide / self.weight_scales[:, None]).round_().to(torch.int8)
        self.packed = torch.ops.onednn.qlinear_prepack(values, [ROWS, values.shape[1]])
        self.zeros = torch.zeros(len(values), dtype=torch.int64)
        self.bias = None if bias is None else bias.detach().to(dtype)

    def prepare(self, x: Tensor) -> Bytes:
        wide = x.to(torch.float32, copy=True)
        scales = _scales(wide)
        # Signed, then the sign bit over: the conversion to unsigned bytes is not vectorised.
        signed = wide.mul_(scales.reciprocal()).round_().to(torch.int8)
        return Bytes(signed.view(torch.uint8).bitwise_xor_(HALF), scales)

    def product(self, x: Bytes) -> Tensor:
        rows = x.values.reshape(-1, x.values.shape[-1])  # of more than two dimensions it takes no empty one
        y = torch.ops.onednn.qlinear_pointwise(
            rows, 1.0, HALF, self.packed, self.weight_scales, self.zeros, None, 1.0, 0, self.dtype, "none", [], ""
        )
        y = y.view(*x.values.shape[:-1], len(self.zeros)).mul_(x.scales.to(self.dtype))
        return y if self.bias is None else y.add_(self.bias)

    def silu(self, x: Bytes) -> Tensor:
        return F.silu(self.product(x), inplace=True)

    def times(self, x: Bytes, factor: Tensor) -> Tensor:
        return self.product(x).mul_(factor)

    def forward(self, x: Tensor) -> Tensor:
        """In x's own type, as an operator of a user's own expects it."""
        return self.product(self.prepare(x)).to(x.dtype)


def with_packed_linears(module: nn.Module, linear: Layer) -> Any:
    """A view of the module with every plain nn.Linear in it packed; its code stays as it is.

    A packed layer is still an nn.Linear with its weight: the code may read more of it than its product.
    """
    if is_plain_linear(module):
        view: Any = copy.copy(module)
        view.forward = linear(view.weight, view.bias).forward
        return view
    return with_children(
        module, **{name: with_packed_linears(child, linear) for name, child in module.named_children()}
    )


def is_plain_linear(module: nn.Module) -> bool:
    """Whether the module's answer is its weight's product and nothing else: nothing was put on or around it."""
    return type(module) is nn.Linear and called_as(module) is None and held_as(module) is None


def called_as(module: nn.Module) -> str | None:
    """What a call of the module runs besides the forward of its class, {} being its name; None for nothing."""
    if "forward" in vars(module):
        return "{}.forward was replaced, as accelerate does under autocast, and a view would run the former one"
    if any(getattr(module, hooks) for hooks in HOOKS):
        return "{} has hooks, which would not be called: remove them"
    return None


def held_as(module: nn.Module) -> str | None:
    """In what form but plain numbers the module holds its weights, {} being its name; None for plain ones."""
    if "parametrizations" in module._modules:  # as torch.nn.utils.parametrize calls them
        return (
            "the weights of {} are parametrized, and it would compute with bare ones: remove_parametrizations of "
            "torch.nn.utils.parametrize makes them so"
        )
    other = [type(weight) for weight in module._parameters.values() if type(weight) not in BARE]
    return f"the weights of {{}} are held as {other[0].__name__}, it is for bare ones alone" if other else None


def kinds(module: nn.Module) -> dict[str, type[nn.Module]]:
    """The class of every module in this one, by its name; what replaces a layer shows in it."""
    return {name: type(part) for name, part in module.named_modules()}


def with_children(module: nn.Module, **children: nn.Module) -> Any:
    """The module with other children; everything else is shared, and the module stays as it is."""
    view = copy.copy(module)
    view.__dict__["_modules"] = {**dict(module.named_children()), **children}
    return view


def int8_missing() -> str | None:
    """Why `Int8Linear` cannot run here. Without VNNI oneDNN sums pairs of products in 16 bits, which overflow."""
    if not torch.cpu._is_vnni_supported():
        return "this processor has no AVX512-VNNI"
    ones = torch.ones(1, 64)  # oneDNN can be told to do without (ONEDNN_MAX_CPU_ISA): only a product shows it
    summed = Int8Linear(ones, None, torch.float32)(ones).item()
    return None if abs(summed - 64) < 0.1 else f"oneDNN does not use AVX512-VNNI: 64 ones summed give {summed:.3g}"


def _scales(x: Tensor) -> Tensor:
    """[..., I] -> [..., 1]: what the largest entry of a row over 127 is, and never zero."""
    # Two passes without an array of magnitudes are faster than one of them with it.
    largest = torch.maximum(x.amax(-1, keepdim=True), -x.amin(-1, keepdim=True))
    return largest.clamp_(min=torch.finfo(torch.float32).tiny * LARGEST).div_(LARGEST)
