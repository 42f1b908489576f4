"""The operator registry and the post-norm stack that the recursion applies. Source: arXiv 2510.04871, section 4.

An operator is a class with `__init__(config)` and `forward(x_BLD) -> x_BLD`: any nn.Module, or an Operator, which may
say more (see layers_trm). A user's own one joins in one line, `OPERATORS["name"] = Class`, and is then named in
`TRMConfig.block_operators`; more arguments of its `__init__` are `TRMConfig.operator_options`. operator_files_trm reads
its file and sends it along with a checkpoint.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from .attention_trm import Attention
from .axial_trm import Axial
from .configuration_trm import TRMConfig
from .conv2d_trm import Conv2d
from .conv_mlp_trm import ConvMlp
from .delta_trm import GatedDeltaNet
from .frames_trm import Frame, frames
from .layers_trm import Operator, rms_norm
from .mamba2_trm import Mamba2
from .mamba3_trm import Mamba3
from .mlp_trm import Mlp, MlpT
from .packed_linear_trm import kinds
from .registry_trm import OPERATORS
from .symbols_trm import Symbols

BUILT_IN: dict[str, Any] = {"attention": Attention, "mamba2": Mamba2, "mlp_t": MlpT, "mlp": Mlp, "symbols": Symbols}
BUILT_IN |= {"mamba3": Mamba3, "delta": GatedDeltaNet, "conv_mlp": ConvMlp, "conv2d": Conv2d, "axial": Axial}
OPERATORS.update(BUILT_IN)


def check_operator(name: str, cls: Any) -> None:
    """Raise ValueError for what is registered under this name but could not be saved and loaded again under it."""
    if not (isinstance(cls, type) and issubclass(cls, nn.Module) and cls.__name__.isidentifier()):
        raise ValueError(
            f"OPERATORS[{name!r}] is {cls!r}; allowed: a class derived from nn.Module, which a checkpoint finds by its "
            f"name. Write a class; what a function or functools.partial would fix, its __init__ can set"
        )
    if BUILT_IN.get(name, cls) is not cls:
        raise ValueError(
            f"OPERATORS[{name!r}] is {cls.__qualname__} of {cls.__module__}, but {name!r} is an operator of the "
            f"package, which checkpoints would be loaded with: register yours under a name of its own"
        )


def build_operator(name: str, config: TRMConfig) -> nn.Module:
    """The operator of this name, with its options. Raises ValueError for one that a checkpoint could not bring back."""
    check_operator(name, OPERATORS[name])
    operator: nn.Module = OPERATORS[name](config, **config.operator_options.get(name, {}))
    unsaved = [f"{path}.{key}".lstrip(".") for path, module in operator.named_modules() for key in _unsaved(module)]
    if unsaved:
        raise ValueError(
            f"operator {name!r} holds {', '.join(unsaved)}, which no checkpoint has, so that it would be filled with "
            f"garbage on loading: register it as a buffer with persistent=True, or compute it in forward or prepare"
        )
    return operator


def _unsaved(module: nn.Module) -> Iterator[str]:
    """The tensors of a module itself that are in no checkpoint, nor made anew when its class is built without data."""
    yield from (key for key in module._non_persistent_buffers_set if module._buffers[key] is not None)
    yield from (key for key, value in vars(module).items() if isinstance(value, Tensor))


class Stack(nn.ModuleList):
    """h = rms_norm(h + operator(h)) for each of `config.block_operators`: [B, L, D] -> [B, L, D].

    Of a model with symbol fields h is [B, K, L, D]; each operator sees it in its frame (frames_trm).
    Post-norm, without weight: pre-norm residuals grow over the recursion until they overflow (arXiv 2602.12078).
    """

    def __init__(self, config: TRMConfig) -> None:
        super().__init__(build_operator(name, config) for name in config.block_operators)
        self.eps, self.frames = config.rms_norm_eps, frames(self, config)
        self.made_of = kinds(self)

    def prepare(self, x: Tensor) -> list[tuple[Tensor, ...]]:
        """What each operator takes besides its input, once for all calls of a supervision step (Operator.prepare)."""
        return [
            operator.prepare(frame.sequences(x)) if isinstance(operator, Operator) else ()
            for operator, frame in self.in_frames()
        ]

    def in_frames(self) -> Iterator[tuple[nn.Module, Frame]]:
        """Each operator and its frame."""
        return zip(self, self.frames)

    def forward(self, h: Tensor, prepared: Sequence[tuple[Tensor, ...]] | None = None) -> Tensor:
        """`prepared` is what `prepare` gave; without it every operator prepares itself."""
        for (operator, frame), own in zip(self.in_frames(), prepared or [()] * len(self)):
            h = rms_norm(h + frame.apply(operator, h, *own), self.eps, frame.norm_dim)
        return h


from .own_operators_trm import OWN_OPERATORS  # noqa: E402  (its files import OPERATORS)

OPERATORS.update(OWN_OPERATORS)
