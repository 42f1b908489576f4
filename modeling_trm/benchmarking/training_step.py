"""One training step of full-size models: forward, loss, gradients, the reference recipe's optimisers, weight average.

Source of the recipe: arXiv 2510.04871, section 2 and the public code's pretrain.py (AdamATan2, sign-SGD for the table).
"""

from collections.abc import Callable, Iterator

from torch import Tensor

from ..compiling_trm import can_compile
from ..modeling_trm import TRMForGridReasoning
from ..training.arguments import OptimisationArguments
from ..training.ema import ExponentialMovingAverage
from ..training.optimisers import build_optimisers, core_parameters
from ..utils.flops import training_flops
from .measure import Group, Line, Skipped
from .settings import Settings, preset_config, random_ids, random_model

EMA_DECAY = 0.999
STACKS = ("eager", "compiled")  # of a training step; the engines of inference have no gradients


def groups(settings: Settings) -> Iterator[Group]:
    for length in settings.lengths:
        for batch_size in settings.batch_sizes:
            lines: list[Line] = []
            skipped: list[Skipped] = []
            for preset in settings.presets:
                config = preset_config(preset, length)
                cost = batch_size * training_flops(config)
                excess = settings.excess(cost)
                if excess is not None:
                    skipped.append(Skipped(f"{preset}, L {length}, batch {batch_size}", excess))
                    continue
                ids = random_ids(config, batch_size, settings.device)
                labels = {"work": "training step", "preset": preset, "L": length, "batch": batch_size}
                for dtype in settings.dtypes:
                    for stack in stacks(settings, skipped):
                        model = random_model(config, settings.device).train()
                        if stack == "compiled":
                            model.model.stack.compile()
                        call = training_step(model, ids, settings, dtype)
                        lines.append(Line({**labels, "dtype": dtype, "engine": stack}, call, cost, profile=True))
            yield Group(lines, skipped=skipped)


def stacks(settings: Settings, skipped: list[Skipped]) -> Iterator[str]:
    """Those of the engines asked for that have gradients."""
    for name in STACKS:
        if name not in settings.engines:
            continue
        if name == "compiled" and not can_compile(settings.device):
            skipped.append(Skipped(f"engine {name}", "torch.compile finds no compiler here"))
        else:
            yield name


def training_step(model: TRMForGridReasoning, ids_BL: Tensor, settings: Settings, dtype: str) -> Callable[[], None]:
    optimisers = build_optimisers(model, OptimisationArguments())
    average = ExponentialMovingAverage(core_parameters(model), EMA_DECAY)

    def run() -> None:
        with settings.precision(dtype):
            loss = model(ids_BL, labels=ids_BL).loss
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        average.update()

    return run
