"""A training step against a checkout of the public TinyRecursiveModels code, with the same weights and batch.

Forward, loss and gradients of the weights; the optimisers are left out on both sides, because the public code takes its
own from a package that is compiled for CUDA. Source: models/losses.py and pretrain.py (train_batch) of the public code
of arXiv 2510.04871.

Shapes: B puzzles, L cells.
"""

import copy
import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..conversion.checkpoint_file import ConversionError
from ..conversion.layout import our_name
from ..modeling_trm import TRMForGridReasoning
from ..utils.flops import training_flops
from .measure import Check, Group, Line, Skipped, compare
from .reference import CHECKED, LENGTH, THEIRS, build, compared_dtype, exported_model, load_reference, sizes_of
from .settings import Settings, preset_config, random_ids, random_model
from .training_step import stacks

LOSSES = "models.losses"
PREFIX = "model.inner."  # of a weight in the loss head
# Of the gradient of every weight, against its largest number. In bfloat16: this, or twice what rounding changes there.
FLOAT32_TOLERANCE, BFLOAT16_TOLERANCE = 5e-3, 0.2

Gradients = dict[str, Tensor]  # by our names


def groups(settings: Settings) -> Iterator[Group]:
    if settings.reference is None:
        yield Group(skipped=[Skipped("everything", "needs --reference, a checkout of the public code")])
        return
    trm = load_reference(settings.reference)
    settings = replace(settings, dtypes=[compared_dtype(settings)])
    for preset in settings.presets:
        model = random_model(preset_config(preset, LENGTH), settings.device).train()
        try:
            state, arch = exported_model(model)
        except ConversionError as error:
            yield Group(skipped=[Skipped(preset, str(error))])
            continue
        head = partial(loss_head, settings, trm, model, state, arch)
        checks = list(_checks(settings, preset, model, head))
        for batch_size in settings.batch_sizes:
            yield _group(settings, preset, model, head, batch_size, checks)


def loss_head(
    settings: Settings,
    trm: Any,
    model: TRMForGridReasoning,
    state: dict[str, Tensor],
    arch: dict[str, Any],
    batch_size: int,
    dtype: str,
) -> nn.Module:
    """The public model in its public loss, in training mode."""
    public = build(trm, state, arch, sizes_of(model, batch_size), dtype, settings.device)
    return importlib.import_module(LOSSES).ACTLossHead(public, "stablemax_cross_entropy").train()


def _group(
    settings: Settings,
    preset: str,
    model: TRMForGridReasoning,
    head: Callable[[int, str], nn.Module],
    batch_size: int,
    checks: list[Check],
) -> Group:
    dtype, cost = settings.dtypes[0], batch_size * training_flops(model.config)
    excess = settings.excess(cost)
    if excess is not None:
        return Group(skipped=[Skipped(f"{preset}, batch {batch_size}", excess)])
    skipped: list[Skipped] = []
    ids_BL = random_ids(model.config, batch_size, settings.device)
    labels = {"work": f"gradients, {preset}", "L": LENGTH, "batch": batch_size, "dtype": dtype}
    lines = []
    for stack in stacks(settings, skipped):
        theirs, ours = head(batch_size, dtype), copy.deepcopy(model)
        called: Callable[..., Any] = theirs
        if stack == "compiled":  # the whole head, as its pretrain.py does; ours as our trainer does
            called = torch.compile(theirs)
            ours.model.stack.compile()
        name = f"{THEIRS}, {stack}"
        lines.append(Line({**labels, "engine": name}, partial(their_gradients, called, theirs, ids_BL), cost))
        lines.append(Line({**labels, "engine": stack}, partial(our_gradients, ours, ids_BL, settings, dtype), cost))
    return Group(lines, checks, skipped)


def _checks(
    settings: Settings, preset: str, model: TRMForGridReasoning, head: Callable[[int, str], nn.Module]
) -> Iterator[Check]:
    """The weight whose gradients differ most, in float32 and in the type that is timed."""
    ids_BL = random_ids(model.config, CHECKED, settings.device)
    dtypes = list(dict.fromkeys(("float32", *settings.dtypes)))
    theirs = {dtype: their_gradients(public := head(CHECKED, dtype), public, ids_BL) for dtype in dtypes}
    for dtype in dtypes:
        ours = our_gradients(model, ids_BL, settings, dtype)
        rounding = _largest("", theirs[dtype], theirs["float32"], 0).error
        allowed = FLOAT32_TOLERANCE if dtype == "float32" else max(BFLOAT16_TOLERANCE, 2 * rounding)
        yield _largest(f"{preset}, {dtype}: gradient", ours, theirs[dtype], allowed)


def _largest(what: str, actual: Gradients, expected: Gradients, allowed: float) -> Check:
    checks = [compare(f"{what} of {name}", actual[name], tensor, allowed) for name, tensor in expected.items()]
    return max(checks, key=lambda check: check.error)


def their_gradients(called: Callable[..., Any], head: nn.Module, ids_BL: Tensor) -> Gradients:
    """A first step. `head` is the loss head that `called` may be a compiled form of; its loss is a sum over puzzles."""
    rows = torch.zeros(len(ids_BL), dtype=torch.int32, device=ids_BL.device)
    batch = {"inputs": ids_BL.int(), "labels": ids_BL.int(), "puzzle_identifiers": rows}
    with ids_BL.device:  # it makes its carry on the default device
        carry = head.initial_carry(batch)  # type: ignore[operator]  # nn.Module's attributes are not typed
    _, loss, *_ = called(carry=carry, batch=batch, return_keys=[])
    (loss / len(ids_BL)).backward()
    return _taken({our_name(name.removeprefix(PREFIX)): weight for name, weight in head.named_parameters()})


def our_gradients(model: TRMForGridReasoning, ids_BL: Tensor, settings: Settings, dtype: str) -> Gradients:
    with settings.precision(dtype):
        loss = model(ids_BL, labels=ids_BL).loss
    loss.backward()
    return _taken(dict(model.named_parameters()))


def _taken(weights: dict[str, nn.Parameter]) -> Gradients:
    """The gradients, which the weights then no longer have."""
    gradients = {name: weight.grad.detach() for name, weight in weights.items() if weight.grad is not None}
    for weight in weights.values():
        weight.grad = None
    return gradients
