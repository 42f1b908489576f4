"""Data and training of the loop experiment: real Sudoku, plain back-propagation through the unrolled loops.

Data: the shipped sample, some of whose blanks are filled in (`reveal`) so that a small model learns within minutes;
each training puzzle under a symmetry of its own. The test puzzles share no solution with the training ones up to
symmetry. The loss is that of the blanks; Muon on the stack's matrices, AdamW on the rest.

Shapes: B puzzles of a batch, N test puzzles, L cells, D hidden, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from tqdm.auto import tqdm

from datasets_builders.features import PuzzleSet, load_puzzles
from datasets_builders.sampling import BLANK_ID, TrainingStream

from ..losses_trm import IGNORE_INDEX, softmax_cross_entropy
from ..training.arguments import OptimisationArguments
from ..training.optimisers import OPTIMISERS
from ..training.schedule import lr_factor, set_lr
from ..utils.machine import computes_in_bf16
from .loops import CARRIES, LoopedModel

ADAMW_SHARE = 0.2  # of Muon's learning rate
WARMUP_SHARE, CLIP_GRAD_NORM = 0.03, 1.0
DATA_SEED = 0  # of the test puzzles' filled-in blanks: the same for every arm and seed


@dataclass(frozen=True)
class Settings:
    """What all arms of an experiment share.

    `learning_rate` is Muon's. It decides whether an arm learns at all: at 0.02 "norm" lost the input within the four
    trained loops (effective rank 1.2) and answered at chance; at 0.005 it learns.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    train_loops: int
    loops: int
    steps: int
    batch_size: int
    test_puzzles: int
    source: str
    reveal: float
    learning_rate: float

    def __post_init__(self) -> None:
        for name in ("train_loops", "steps", "batch_size", "test_puzzles"):
            if self.__dict__[name] < 1:
                raise ValueError(f"{name}={self.__dict__[name]} is not allowed; allowed: 1 or more")
        if self.loops <= self.train_loops:
            raise ValueError(f"loops={self.loops} is not allowed; allowed: more than train_loops={self.train_loops}")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate={self.learning_rate} is not allowed; allowed: above 0 and below 1")
        if not 0 <= self.reveal < 1:
            raise ValueError(f"reveal={self.reveal} is not allowed; allowed: from 0 to below 1, where nothing is blank")

    def measured_loops(self) -> list[int]:
        """1, 2, 4, ... and 3, 6, 12, ... up to `loops`, 10 (where the collapse was reported), the trained depth."""
        doubling = [start * 2**k for start in (1, 3) for k in range(self.loops.bit_length())]
        return sorted({n for n in [*doubling, 10, self.train_loops, self.loops] if n <= self.loops})


@dataclass(frozen=True)
class Data:
    """The training stream's puzzles, and the test puzzles as the model gets them: int64 [N, L]."""

    training: PuzzleSet
    input_ids: Tensor
    labels: Tensor
    fingerprints: dict[str, str]


def open_data(settings: Settings) -> Data:
    """Raises ValueError for a source that the sample lacks, or more test puzzles than it has."""
    parts = {}
    for split in ("train", "test"):
        puzzles = load_puzzles("sudoku", split)
        known = sorted(set(puzzles.sources.tolist()))
        if settings.source not in known:
            raise ValueError(f"source={settings.source!r} is not in the sample; allowed: {', '.join(known)}")
        parts[split] = puzzles.select(puzzles.sources == settings.source)
    test = parts["test"]
    if settings.test_puzzles > len(test):
        raise ValueError(f"test_puzzles={settings.test_puzzles} is not allowed; allowed: at most {len(test)}")
    stream = TrainingStream(test, seed=DATA_SEED, augment=False)
    input_ids, labels = _batch(stream, range(settings.test_puzzles), settings.reveal)
    return Data(parts["train"], input_ids, labels, {split: part.fingerprint for split, part in parts.items()})


def train(
    model: LoopedModel, seed: int, settings: Settings, puzzles: PuzzleSet, *, progress: bool, description: str
) -> list[float]:
    """The loss of every step; fewer than `settings.steps` where it is no longer finite, as a growing state can make it.

    Args:
        seed: of the stream; every arm with this seed sees the same rows in the same order.
    """
    stream = TrainingStream(puzzles, seed=seed)
    device, optimisers = model.H_init.device, _optimisers(model, settings.learning_rate)
    warmup, B = round(WARMUP_SHARE * settings.steps), settings.batch_size
    losses: list[float] = []
    carries = CARRIES if model.arm.supervise == "carried" else 1  # steps that the same puzzles stay for
    with tqdm(total=settings.steps, desc=description, unit="step", disable=not progress) as bar:
        for step in range(1, settings.steps + 1):
            draw, stayed = divmod(step - 1, carries)
            if stayed == 0:
                input_ids, labels = _batch(stream, range(draw * B, (draw + 1) * B), settings.reveal)
                state = None
            done = stayed * settings.train_loops
            loss, state = training_loss(
                model, input_ids.to(device), labels.to(device), settings.train_loops, state, done
            )
            if not loss.isfinite():
                break
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_GRAD_NORM)
            set_lr(optimisers, lr_factor(step, warmup_steps=warmup, total_steps=settings.steps, kind="cosine"))
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad()
            losses.append(loss.item())
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
            bar.update()
    return losses


def training_loss(
    model: LoopedModel,
    input_ids_BL: Tensor,
    labels_BL: Tensor,
    loops: int,
    state: Tensor | None = None,
    done: int = 0,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the blanks after the last of these loops, or its mean over them where the arm supervises every.

    Args and the second result, detached: the state to go on from, see LoopedModel.loops.
    """
    with autocast(input_ids_BL.device):
        states = list(model.loops(input_ids_BL, loops, state, done))
        supervised = states if model.arm.supervise == "every" else states[-1:]
        logits = [model.answer(z_BLD) for z_BLD in supervised]
    losses = [softmax_cross_entropy(logits_BLV, labels_BL).mean() for logits_BLV in logits]
    return torch.stack(losses).mean(), states[-1].detach()


def _optimisers(model: LoopedModel, learning_rate: float) -> list[Optimizer]:
    matrices = [p for p in model.stack.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    arguments = OptimisationArguments(
        learning_rate=ADAMW_SHARE * learning_rate, weight_decay=0.0, muon_lr=learning_rate, muon_weight_decay=0.0
    )
    return OPTIMISERS["muon"](matrices, others, arguments)


def _batch(stream: TrainingStream, indices: range, reveal: float) -> tuple[Tensor, Tensor]:
    """input_ids and labels [B, L] of these rows of the stream; labels only for the blanks."""
    rows = stream.rows(np.arange(indices.start, indices.stop), reveal)
    input_ids, labels = (torch.from_numpy(rows[name]).long() for name in ("inputs", "labels"))
    return input_ids, labels.masked_fill(input_ids != BLANK_ID, IGNORE_INDEX)


def autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bf16(device.type))
