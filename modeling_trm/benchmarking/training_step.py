"""One training step of full-size models: forward, loss, gradients, the reference recipe's optimisers, weight average.

Source of the recipe: arXiv 2510.04871, section 2 and the public code's pretrain.py (AdamATan2, sign-SGD for the table).
"""

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from torch import Tensor

from ..compiling_trm import can_compile
from ..configuration_trm import TRMConfig
from ..memory_trm import keep_freed_memory
from ..modeling_trm import TRMForGridReasoning
from ..training.arguments import OptimisationArguments
from ..training.ema import ExponentialMovingAverage
from ..training.optimisers import build_optimisers, core_parameters
from ..utils.flops import training_flops
from .measure import Group, Line, Skipped, describe
from .settings import Settings, preset_config, random_ids, random_model
from .ssd import ssd_missing

EMA_DECAY = 0.999
STACKS = ("eager", "compiled")  # of a training step; the engines of inference have no gradients


def groups(settings: Settings) -> Iterator[Group]:
    """The presets of a length and batch size take turns. In a run of limited time each model is a group of its own:
    small ones end near the limit, and what is done is written."""
    keep_freed_memory()  # as a run does
    for length, batch_size in product(settings.lengths, settings.batch_sizes):
        single = (_group(settings, *case, batch_size) for case in _cases(settings, length))
        if math.isfinite(settings.seconds):
            yield from single
        else:
            joined = list(single)
            skipped = dict.fromkeys(skipped for group in joined for skipped in group.skipped)
            yield Group([line for group in joined for line in group.lines], skipped=list(skipped))


def _cases(settings: Settings, length: int) -> Iterator[tuple[dict[str, Any], TRMConfig]]:
    """A preset, or where it has Mamba-2 layers a preset with each SSD backend: its labels and configuration."""
    for preset in settings.presets:
        config = preset_config(preset, length)
        if "mamba2" not in config.block_operators:
            yield {"preset": preset}, config
            continue
        for backend in settings.ssd_backends:
            yield {"preset": preset, "SSD": backend}, preset_config(preset, length)  # its own, which says the backend


def _group(settings: Settings, case: dict[str, Any], config: TRMConfig, batch_size: int) -> Group:
    labels = {"work": "training step", **case, "L": config.num_positions, "batch": batch_size}
    cost = batch_size * training_flops(config)
    reason = (ssd_missing(case["SSD"], settings.device) if "SSD" in case else None) or settings.excess(cost)
    if reason is not None:
        return Group(skipped=[Skipped(describe(labels), reason)])
    ids = random_ids(config, batch_size, settings.device)
    lines: list[Line] = []
    skipped: list[Skipped] = []
    for dtype, stack in product(settings.dtypes, stacks(settings, skipped)):
        model = random_model(config, settings.device).train()
        if "SSD" in case:
            model.set_kernels(ssd_backend=case["SSD"])
        if stack == "compiled":
            model.model.stack.compile()
        call = training_step(model, ids, settings, dtype)
        lines.append(Line({**labels, "dtype": dtype, "engine": stack}, call, cost, profile=True))
    return Group(lines, skipped=skipped)


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
