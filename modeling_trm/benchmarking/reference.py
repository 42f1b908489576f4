"""Against a checkout of the public TinyRecursiveModels code, with the same weights: a step, and solving puzzles.

Source: models/recursive_reasoning/trm.py, models/losses.py and pretrain.py (evaluate) of the public code of arXiv
2510.04871. It has no halting at evaluation: every puzzle takes halt_max_steps there, ours stops at its halting head.

Shapes: B puzzles, L cells, V vocabulary.
"""

import copy
import importlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from ..compiling_trm import can_compile
from ..conversion.checkpoint_file import ConversionError
from ..conversion.given import CONFIG_FILE
from ..conversion.to_reference import PREFIX, export_reference
from ..modeling_trm import TRMForGridReasoning
from ..utils.flops import flops
from ..utils.loading import load_model
from .engines import prepared
from .measure import Check, Group, Line, Skipped, compare
from .settings import Settings, preset_config, random_ids, random_model
from .solving import Solved, chunks_of

FILE = Path("models", "recursive_reasoning", "trm.py")
MODULE = "models.recursive_reasoning.trm"
BATCH_SIZES = (8, 16)
LENGTH = 97
THEIRS = "reference"
CHECKED = 2  # puzzles whose logits are compared
FLOAT32_TOLERANCE = 2e-3  # of the logits of one step: other weights or formulas would show here
# Of the same in bfloat16. Random weights amplify a rounding at every call of the stack, and autocast rounds at other
# places than the reference: allowed is this, or twice what rounding alone changes over there.
BFLOAT16_TOLERANCE = 0.1


def load_reference(checkout: Path) -> Any:
    """The module of the public model. Raises ValueError naming the file or the package that is missing."""
    if not (checkout / FILE).is_file():
        raise ValueError(f"--reference {checkout}: has no {FILE}; allowed: a checkout of TinyRecursiveModels")
    sys.path.insert(0, str(checkout))
    try:
        return importlib.import_module(MODULE)
    except ImportError as error:
        raise ValueError(f"--reference {checkout}: its code does not import: {error}") from error
    finally:
        sys.path.remove(str(checkout))


def groups(settings: Settings) -> Iterator[Group]:
    if settings.reference is None:
        yield Group(skipped=[Skipped("everything", "needs --reference, a checkout of the public code")])
        return
    trm = load_reference(settings.reference)
    settings = replace(settings, dtypes=[compared_dtype(settings)])
    for preset in settings.presets:
        model = random_model(preset_config(preset, LENGTH), settings.device)
        try:
            state, arch = exported_model(model)
        except ConversionError as error:
            yield Group(skipped=[Skipped(preset, str(error))])
            continue
        yield from _step_groups(settings, trm, preset, model, state, arch)
    yield from _solving_groups(settings, trm)


def compared_dtype(settings: Settings) -> str:
    """The type both sides are timed in: bfloat16, the reference's own, unless only float32 was asked for."""
    return "bfloat16" if "bfloat16" in settings.dtypes else "float32"


def exported_model(model: TRMForGridReasoning) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """As `exported`, of a model in memory."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return exported(folder)


def exported(folder: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict and the arch section that the public code loads. Raises ConversionError if it cannot."""
    with tempfile.TemporaryDirectory() as output:
        path = Path(output, "step_0")
        export_reference(folder, path)
        state = torch.load(path, weights_only=True)
        arch = yaml.safe_load(path.with_name(CONFIG_FILE).read_text(encoding="utf-8"))["arch"]
    return {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}, arch


def build(
    trm: Any, state: dict[str, Tensor], arch: dict[str, Any], sizes: dict[str, int], dtype: str, device: torch.device
) -> nn.Module:
    """The public model in evaluation mode. sizes: batch_size, seq_len, vocab_size, num_puzzle_identifiers."""
    fields = {name: value for name, value in arch.items() if name not in ("name", "loss")}
    model = trm.TinyRecursiveReasoningModel_ACTV1({**fields, **sizes, "forward_dtype": dtype})
    model.load_state_dict({f"inner.{name}": tensor for name, tensor in state.items()})
    return model.eval().to(device)


@torch.inference_mode()  # as in its pretrain.evaluate
def run_steps(model: Callable[..., Any], first: nn.Module, ids_BL: Tensor, steps: int) -> dict[str, Tensor]:
    """What the public model says after so many steps. `first` is the model that `model` may be a compiled form of."""
    rows = torch.zeros(len(ids_BL), dtype=torch.int32, device=ids_BL.device)
    batch = {"inputs": ids_BL.int(), "puzzle_identifiers": rows}
    with ids_BL.device:  # it makes its carry on the default device
        carry = first.initial_carry(batch)  # type: ignore[operator]  # nn.Module's attributes are not typed
    outputs: dict[str, Tensor] = {}
    for _ in range(steps):
        carry, outputs = model(carry=carry, batch=batch)
    return outputs


def sizes_of(model: TRMForGridReasoning, batch_size: int) -> dict[str, int]:
    config = model.config
    sizes = {"seq_len": config.seq_len, "vocab_size": config.vocab_size, "num_puzzle_identifiers": config.num_puzzles}
    return {"batch_size": batch_size, **sizes}


def _step_groups(
    settings: Settings, trm: Any, name: str, model: TRMForGridReasoning, state: dict[str, Tensor], arch: dict[str, Any]
) -> Iterator[Group]:
    dtype, checks = settings.dtypes[0], checked(settings, trm, name, model, state, arch, None)
    for batch_size in BATCH_SIZES:
        cost = batch_size * flops(model.config)
        excess = settings.excess(cost)
        if excess is not None:
            yield Group(skipped=[Skipped(f"{name}, one step, batch {batch_size}", excess)])
            continue
        theirs = build(trm, state, arch, sizes_of(model, batch_size), dtype, settings.device)
        skipped: list[Skipped] = []
        ids_BL = random_ids(model.config, batch_size, settings.device)
        labels = {"work": f"one step, {name}", "L": model.config.num_positions, "batch": batch_size, "dtype": dtype}
        lines = [
            Line({**labels, "engine": engine}, partial(run, ids_BL, 1), cost)
            for engine, run in _theirs(theirs, settings)
        ]
        for _, engine, solve in prepared(model, settings, skipped):
            lines.append(Line({**labels, "engine": engine}, partial(solve, ids_BL, max_steps=1), cost))
        yield Group(lines, checks, skipped)


def checked(
    settings: Settings,
    trm: Any,
    name: str,
    model: TRMForGridReasoning,
    state: dict[str, Tensor],
    arch: dict[str, Any],
    ids_BL: Tensor | None,
) -> list[Check]:
    """Logits of one step of two puzzles, in float32 and in the type that is timed. ids_BL: None for random ones."""
    ids_BL = random_ids(model.config, CHECKED, settings.device) if ids_BL is None else ids_BL[:CHECKED]
    logits = {}
    for dtype in ("float32", *settings.dtypes):
        theirs = build(trm, state, arch, sizes_of(model, len(ids_BL)), dtype, settings.device)
        expected = run_steps(theirs, theirs, ids_BL, 1)["logits"]
        with torch.no_grad(), settings.precision(dtype):
            logits[dtype] = expected, model(ids_BL).logits
    rounding = compare("", logits[settings.dtypes[0]][0], logits["float32"][0], 0).error
    allowed = {"float32": FLOAT32_TOLERANCE, "bfloat16": max(BFLOAT16_TOLERANCE, 2 * rounding)}
    return [
        compare(f"{name}, {dtype}: logits of a step", ours, theirs, allowed[dtype])
        for dtype, (theirs, ours) in logits.items()
    ]


def _theirs(model: nn.Module, settings: Settings) -> Iterator[tuple[str, Callable[[Tensor, int], dict[str, Tensor]]]]:
    """As it is, and under torch.compile as its pretrain.py does it, if that engine was asked for."""
    yield THEIRS, partial(run_steps, model, model)
    if "compiled" in settings.engines and can_compile(settings.device):
        own = copy.deepcopy(model)
        yield f"{THEIRS}, compiled", partial(run_steps, torch.compile(own), own)


def _solving_groups(settings: Settings, trm: Any) -> Iterator[Group]:
    """The checkpoint's puzzles, some at a time: the reference's full number of steps, and ours with halting."""
    if settings.checkpoint is None or settings.puzzles is None:
        yield Group(skipped=[Skipped("solving with halting", "needs --checkpoint, trained weights that halt")])
        return
    try:
        state, arch = exported(settings.checkpoint)
    except ConversionError as error:
        yield Group(skipped=[Skipped("solving with halting", str(error))])
        return
    dtype, skipped = settings.dtypes[0], list[Skipped]()
    model = load_model(settings.checkpoint, settings.device)
    steps = model.config.halt_max_steps
    chunks = chunks_of(settings.puzzles, settings.at_a_time, settings.device)
    theirs = build(trm, state, arch, sizes_of(model, len(chunks[0][0])), dtype, settings.device)
    labels = {"work": "solving", "L": model.config.num_positions, "batch": len(chunks[0][0]), "dtype": dtype}
    solvers: list[tuple[str, Callable[[Tensor], tuple[Tensor, Tensor]]]] = []
    for engine, run in _theirs(theirs, settings):
        solvers.append((f"{engine}, {steps} steps", partial(_answers_of_theirs, run, steps)))
    for _, engine, solve in prepared(model, settings, skipped):
        solvers.append(
            (f"{engine}, halting at {settings.halt:g}", partial(_answers_of_ours, solve, steps, settings.halt))
        )
    lines = []
    for engine, solver in solvers:
        solved = Solved(solver, chunks)
        lines.append(Line({**labels, "engine": engine}, solved, warm_up=solved.first, result=solved.result))
    checks = checked(settings, trm, "checkpoint", model, state, arch, chunks[0][0])
    yield Group(lines, checks, skipped, rounds=len(chunks))


def _answers_of_theirs(
    run: Callable[[Tensor, int], dict[str, Tensor]], steps: int, ids_BL: Tensor
) -> tuple[Tensor, Tensor]:
    return run(ids_BL, steps)["logits"].argmax(-1), torch.full((len(ids_BL),), steps)


def _answers_of_ours(solve: Callable[..., Any], steps: int, halt: float, ids_BL: Tensor) -> tuple[Tensor, Tensor]:
    out = solve(ids_BL, max_steps=steps, halt=halt)
    return out.answers, out.steps
