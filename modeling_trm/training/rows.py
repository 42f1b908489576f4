"""The rows of each step, drawn by a thread while the device works on the step before."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

COLUMNS = ("inputs", "labels", "puzzle_ids")  # of a row, in the order in which a feed returns them


class Stream(Protocol):
    """An endless sequence of training rows, each a pure function of its number (datasets_builders.sampling)."""

    def rows(self, indices_n: np.ndarray, reveal: float = 0.0) -> dict[str, np.ndarray]: ...


def pinned(array: np.ndarray, device: torch.device) -> Tensor:
    """The array as a tensor from which a copy to the device waits for nothing: on CUDA, in page-locked memory."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if device.type == "cuda" else tensor


def copied(tensor: Tensor, device: torch.device) -> Tensor:
    """What `pinned` gave, on the device. Elsewhere than on CUDA the copy is waited for: its memory must outlive it."""
    return tensor.to(device, non_blocking=device.type == "cuda")


def send(array: np.ndarray, device: torch.device) -> Tensor:
    """The array on the device, in its own type, without waiting for what a GPU still has to do."""
    return copied(pinned(array, device), device)


class RowFeed:
    """Row number (step - 1) * batch_size + slot for every slot of this process, at any step asked for.

    A slot that is not released at that step ignores its row, as in the reference: so the data of a step depends on the
    step alone, whatever the slots did before, and a resumed run or another number of processes sees the same.

    Args:
        stream: where rows come from. slots: numbers of this process's slots in the global batch of `batch_size`.
        reveal: the curriculum at a step, see the stream. device: where the rows are needed.
    """

    def __init__(
        self, stream: Stream, slots: np.ndarray, batch_size: int, reveal: Callable[[int], float], device: torch.device
    ) -> None:
        self.stream, self.slots, self.batch_size, self.reveal, self.device = stream, slots, batch_size, reveal, device
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rows")
        self.next: tuple[int, Future] | None = None

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """inputs [B, L], labels [B, L], puzzle_ids [B] of this step, int64 on the device."""
        ahead = self.next
        rows = ahead[1].result() if ahead is not None and ahead[0] == step else self._draw(step)
        self.next = (step + 1, self.thread.submit(self._draw, step + 1))
        inputs, labels, puzzle_ids = (copied(rows[name], self.device).long() for name in COLUMNS)
        return inputs, labels, puzzle_ids

    def close(self) -> None:
        self.thread.shutdown(wait=True, cancel_futures=True)

    def _draw(self, step: int) -> dict[str, Tensor]:
        rows = self.stream.rows((step - 1) * self.batch_size + self.slots, reveal=self.reveal(step))
        return {name: pinned(rows[name], self.device) for name in COLUMNS}
