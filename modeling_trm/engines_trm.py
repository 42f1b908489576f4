"""Engines: what `solve` computes its supervision steps with. None changes a weight; they differ in speed and rounding.

"packed", "bfloat16" and "int8" run a view of the model whose matrices are laid out once as oneDNN wants them (x86
CPUs), whose operators make fewer passes over their activations, and whose batches are small enough for the cache. The
view lives for one call of `solve`: packing costs less than a pass of the stack, and no answer is of former weights.

Shapes: B batch, L positions, D hidden, H heads, P head size, F inner width; G, N of Mamba-2 groups and state.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention_trm import Attention
from .layers_trm import rms_norm
from .mamba2_trm import ONE_CHUNK_UP_TO, Mamba2, ssd
from .mlp_trm import GatedMLP, Mlp, MlpT
from .packed_linear_trm import ROWS, Int8Linear, PackedLinear, int8_missing
from .recursion_trm import RecursionState

ELEMENTS = ROWS * 512  # of a micro-batch's latent: positions times channels
FORWARD_REPLACED = "model.forward was replaced, as accelerate does under autocast, and a view would run the former one"


class Engine(NamedTuple):
    """prepare(model): what is called like the model. missing(model): why that cannot run here, None if it can."""

    prepare: Callable[[Any], Callable[..., Any]]
    missing: Callable[[Any], str | None]


def choose_engine(model: Any, name: str) -> Callable[..., Any]:
    """What is called like `model`; "auto" is the fastest of its own precision (its dtype, or autocast's).

    Raises:
        ValueError: an unknown name, or an engine that cannot run this model on this machine.
    """
    if name == "auto":
        name = "packed" if packing_missing(model) is None else "eager"
    if name not in ENGINES:
        raise ValueError(f"engine={name!r} is unknown; allowed: auto, {', '.join(ENGINES)}")
    reason = ENGINES[name].missing(model)
    if reason is not None:
        raise ValueError(f"engine={name!r} cannot run here: {reason}; allowed everywhere: auto, eager")
    return ENGINES[name].prepare(model)


def packing_missing(model: Any) -> str | None:
    dtype = _precision(model)
    if dtype == torch.bfloat16:
        return bfloat16_missing(model)
    wrong = None if dtype == torch.float32 else f"the model computes in {dtype}, it is for float32 and bfloat16 alone"
    return _view_missing(model) or wrong


def bfloat16_missing(model: Any) -> str | None:
    return _view_missing(model) or (None if _has_bfloat16() else "this processor has no bfloat16 instructions")


def _view_missing(model: Any) -> str | None:
    if model.device.type != "cpu":
        return f"the model is on {model.device}, it is for the CPU alone"
    if "forward" in vars(model):
        return FORWARD_REPLACED
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return "this PyTorch has no oneDNN, or torch.backends.mkldnn is switched off"
    capability = torch.backends.cpu.get_cpu_capability()
    return None if capability.startswith("AVX") else f"it needs an x86 processor with AVX2, this one has {capability}"


def _has_bfloat16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def int8_rest() -> torch.dtype:
    """What the engine "int8" computes everything but its linear layers in, on this processor."""
    return torch.bfloat16 if _has_bfloat16() else torch.float32


def _precision(model: Any) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else model.dtype


def eager(model: Any) -> Callable[..., Any]:
    """The model itself: what training computes, on every device."""
    return model


def packed(model: Any) -> Callable[..., Any]:
    """oneDNN's layout and micro-batches, in the precision that the model has here and now."""
    dtype = _precision(model)
    return _with_stack(model, PackedStack(model.model.stack, dtype, partial(PackedLinear, dtype=dtype)))


def bfloat16(model: Any) -> Callable[..., Any]:
    """As packed, in bfloat16 whatever the model's precision: the same accuracy over many puzzles, not each answer."""
    with torch.autocast("cpu", torch.bfloat16):
        inner = packed(model)

    def step(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return inner(*args, **kwargs)

    return step


def int8(model: Any) -> Callable[..., Any]:
    """The linear layers in 8 bits, products of activations in bfloat16 (float32 where the processor lacks it).

    The same accuracy over many puzzles, not each answer. It pays for wide layers: at 512 channels, not at 96. The step
    sizes of Mamba-2 keep their precision; of an operator of a user's own every linear layer is in 8 bits.
    """
    dtype = int8_rest()
    return _with_stack(model, PackedStack(model.model.stack, dtype, partial(Int8Linear, dtype=dtype)))


def _with_stack(model: Any, stack: "PackedStack") -> Callable[..., Any]:
    size = max(1, ELEMENTS // (model.config.num_positions * model.config.hidden_size))
    return _view(model, model=MicroBatches(_view(model.model, stack=stack), size))


Layer = Callable[[Tensor, Tensor | None], Any]  # weight [O, I], bias [O] -> a PackedLinear or an Int8Linear

ENGINES = {
    "eager": Engine(eager, lambda model: None),
    "packed": Engine(packed, packing_missing),
    "bfloat16": Engine(bfloat16, bfloat16_missing),
    "int8": Engine(int8, lambda model: _view_missing(model) or int8_missing()),
}


def _view(module: nn.Module, **children: nn.Module) -> Any:
    """The module with other children; everything else is shared, and the module stays as it is."""
    view = copy.copy(module)
    view.__dict__["_modules"] = {**dict(module.named_children()), **children}
    return view


class MicroBatches(nn.Module):
    """A TRMModel that takes at most `size` puzzles at a time, so that their activations stay in the cache."""

    def __init__(self, model: Any, size: int) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(
        self, input_ids: Tensor, puzzle_ids: Tensor | None, state: RecursionState, *args: Any, **kwargs: Any
    ) -> RecursionState:
        parts = []
        for rows in torch.arange(len(input_ids)).tensor_split(max(1, -(-len(input_ids) // self.size))):
            puzzles = None if puzzle_ids is None else puzzle_ids[rows]
            parts.append(self.model(input_ids[rows], puzzles, state.select(rows), *args, **kwargs))
        return RecursionState.join(parts)


class PackedStack(nn.Module):
    """Stack: [B, L, D] -> [B, L, D], with a fast form of each operator, its products of activations in `dtype`."""

    def __init__(self, stack: Any, dtype: torch.dtype, linear: Layer) -> None:
        super().__init__()
        self.stack, self.dtype, self.eps = stack, dtype, stack.eps
        self.operators = [(_fast(operator, dtype, linear), operator.norm_dim) for operator in stack]

    def prepare(self, x_BLD: Tensor) -> list[tuple[Tensor, ...]]:
        """Stack.prepare, its tables in the type of the products."""
        return [tuple(table.to(self.dtype) for table in own) for own in self.stack.prepare(x_BLD)]

    def forward(self, h_BLD: Tensor, prepared: Sequence[tuple[Tensor, ...]] | None = None) -> Tensor:
        for (operator, dim), own in zip(self.operators, prepared or self.prepare(h_BLD)):
            wide = operator(h_BLD, *own).float() + h_BLD.float()
            # Not mean(): its pass over positions is not vectorised.
            squares = (wide * wide).sum(dim, keepdim=True)
            h_BLD = wide.mul_(torch.rsqrt(squares / wide.shape[dim] + self.eps)).to(h_BLD.dtype)
        return h_BLD


def _fast(operator: nn.Module, dtype: torch.dtype, linear: Layer) -> Callable[[Tensor], Tensor]:
    """By the exact class: an operator of a user's own keeps its code and gets packed linear layers."""
    forms: dict[type, Callable[[Any, torch.dtype, Layer], Callable[[Tensor], Tensor]]]
    forms = {Attention: _attention, Mlp: _mlp, MlpT: _mlp_t, Mamba2: _mamba2}
    return forms.get(type(operator), _with_packed_linears)(operator, dtype, linear)


def _with_packed_linears(module: nn.Module, dtype: torch.dtype, linear: Layer) -> Any:
    if type(module) is nn.Linear:
        return linear(module.weight, module.bias)
    children = {name: _with_packed_linears(child, dtype, linear) for name, child in module.named_children()}
    return _view(module, **children)


def _attention(operator: Attention, dtype: torch.dtype, linear: Layer) -> Callable[[Tensor], Tensor]:
    """In float32 PyTorch's fused kernel; in bfloat16 that takes 2 times (97 positions) to 1.5 times (916) as long."""
    qkv_proj, o_proj = (linear(layer.weight, None) for layer in (operator.qkv_proj, operator.o_proj))
    H, P = operator.num_heads, operator.head_dim

    def rotate(x: Tensor, cos_LP: Tensor, sin_LP: Tensor) -> Tensor:
        """[2, B, H, L, P] queries and keys, as a new tensor."""
        y = torch.mul(x, cos_LP, out=torch.empty(x.shape, dtype=dtype))
        y[..., : P // 2].addcmul_(x[..., P // 2 :], sin_LP[:, : P // 2], value=-1)
        y[..., P // 2 :].addcmul_(x[..., : P // 2], sin_LP[:, P // 2 :])
        return y

    def attention(x_BLD: Tensor, *tables: Tensor) -> Tensor:
        B, L, D = x_BLD.shape
        qkv = qkv_proj.product(qkv_proj.prepare(x_BLD)).view(B, L, 3, H, P).permute(2, 0, 3, 1, 4)
        qk = rotate(qkv[:2], *tables) if tables else qkv[:2]
        if dtype == torch.float32:
            y_BHLP = F.scaled_dot_product_attention(qk[0], qk[1], qkv[2])
        else:
            q, k = qk.reshape(2, B * H, L, P)
            scores = torch.baddbmm(q.new_empty(1), q, k.transpose(1, 2), beta=0, alpha=P**-0.5)
            y_BHLP = torch.bmm(scores.softmax(-1), qkv[2].reshape(B * H, L, P)).view(B, H, L, P)
        return o_proj(y_BHLP.transpose(1, 2).reshape(B, L, D))

    return attention


def _gated(operator: GatedMLP, g: Tensor, v: Tensor, dim: int) -> Tensor:
    if operator.gate == "silu":
        return F.silu(g, inplace=True).mul_(v)
    return rms_norm(g * v, operator.eps, dim).mul_(g.sigmoid_())


def _mlp(operator: Mlp, dtype: torch.dtype, linear: Layer) -> Callable[[Tensor], Tensor]:
    gate_weight, up_weight = operator.gate_up_proj.weight.chunk(2)
    gate, up = linear(gate_weight, operator.gate_bias), linear(up_weight, None)
    down = linear(operator.down_proj.weight, None)

    def mlp(x_BLD: Tensor) -> Tensor:
        x = gate.prepare(x_BLD)
        return down(_gated(operator, gate.product(x), up.product(x), -1))

    return mlp


def _mlp_t(operator: MlpT, dtype: torch.dtype, linear: Layer) -> Callable[[Tensor], Tensor]:
    """The weights from the left, W [F, L] @ x [L, D]: nothing is transposed, and nothing is in 8 bits."""
    gate_FL, up_FL = operator.gate_up_proj.weight.detach().to(dtype).chunk(2)
    down_LF = operator.down_proj.weight.detach().to(dtype)
    bias = None if operator.gate_bias is None else operator.gate_bias.detach().to(dtype)[:, None]

    def mlp_t(x_BLD: Tensor) -> Tensor:
        x_BLD = x_BLD.to(dtype)
        g_BFD = torch.matmul(gate_FL, x_BLD)
        if bias is not None:
            g_BFD.add_(bias)
        return torch.matmul(down_LF, _gated(operator, g_BFD, torch.matmul(up_FL, x_BLD), -2))

    return mlp_t


def _mamba2(operator: Mamba2, dtype: torch.dtype, linear: Layer) -> Callable[[Tensor], Tensor]:
    """As Mamba2._mix_torch, its three inputs as products of their own and what can be written over written over."""
    if operator.config.ssd_backend not in ("auto", "torch"):
        return _with_packed_linears(operator, dtype, linear)  # which says why that backend is not for a CPU
    widths = [operator.d_inner, operator.conv1d.in_channels, operator.n_heads]
    z_weight, xBC_weight, dt_weight = operator.in_proj.weight.split(widths)
    z_proj, xBC_proj, out_proj = (linear(w, None) for w in (z_weight, xBC_weight, operator.out_proj.weight))
    dt_proj = PackedLinear(dt_weight, None, dtype)  # never in 8 bits: step sizes are summed over all positions
    kernel_KC = operator.conv1d.weight.detach().squeeze(1).to(dtype).t().contiguous()
    bias_C, D_H1 = operator.conv1d.bias.to(dtype), operator.D.to(dtype)[:, None]  # type: ignore[union-attr]  # it has one
    A_H, norm_weight = -torch.exp(operator.A_log.float()), operator.norm.weight.to(dtype)

    def conv(x_BLC: Tensor) -> Tensor:
        y_BLC = torch.addcmul(bias_C, x_BLC, kernel_KC[-1])
        for back in range(1, len(kernel_KC)):
            y_BLC[:, back:].addcmul_(x_BLC[:, :-back], kernel_KC[-1 - back])
        return F.silu(y_BLC, inplace=True)

    def mamba2(x_BLD: Tensor) -> Tensor:
        x = xBC_proj.prepare(x_BLD)
        x_BLHP, B_BLGN, C_BLGN = operator._heads(conv(xBC_proj.product(x)))
        dt_BLH = F.softplus(dt_proj(x_BLD).float() + operator.dt_bias)
        mix = _one_chunk if x_BLD.shape[1] <= ONE_CHUNK_UP_TO else ssd
        y_BLHP = torch.addcmul(mix(x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN), x_BLHP, D_H1)
        gated = y_BLHP.flatten(-2).mul_(F.silu(z_proj.product(x), inplace=True)).unflatten(-1, (operator.n_groups, -1))
        return out_proj(rms_norm(gated, operator.eps).flatten(-2).mul_(norm_weight))

    return mamba2


def _one_chunk(x_BLHP: Tensor, dt_BLH: Tensor, A_H: Tensor, B_BLGN: Tensor, C_BLGN: Tensor) -> Tensor:
    """As ssd_one_chunk, with one array of L * L numbers a head that is written over."""
    B, L, H, P = x_BLHP.shape
    # Contiguous over positions, or every array below would be transposed for its product.
    cumulative_BHL = (dt_BLH * A_H).cumsum(1).transpose(1, 2).contiguous()
    scores_BGLL = (C_BLGN.transpose(1, 2) @ B_BLGN.permute(0, 2, 3, 1)).tril_()
    decay_BHLL = (cumulative_BHL[..., :, None] - cumulative_BHL[..., None, :]).clamp_(max=0).exp_()
    weights_BGELL = decay_BHLL.to(scores_BGLL.dtype).unflatten(1, (scores_BGLL.shape[1], -1))
    weights_BGELL.mul_(scores_BGLL[:, :, None])
    scaled_BHLP = (x_BLHP * dt_BLH[..., None].to(x_BLHP.dtype)).transpose(1, 2).reshape(B * H, L, P)
    return torch.bmm(weights_BGELL.reshape(B * H, L, L), scaled_BHLP).view(B, H, L, P).transpose(1, 2)
