"""What ends a run before its last step: a signal or the clock, until it is resumed, or validation that stands still."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch._dynamo.exc import TorchDynamoException

from .arguments import RunArguments


class Stopping:
    """All processes of a run ask it at the same steps, and all of them get the same answer.

    Args:
        run: stop_after_minutes, log_every, eval_every and early_stopping_patience are read. started: as the clock
            (time.perf_counter) stood when the run began.
    """

    def __init__(self, accelerator: Accelerator, run: RunArguments, started: float) -> None:
        self.accelerator, self.run, self.started = accelerator, run, started
        self.signal: int | None = None

    def asked(self, step: int) -> bool:
        """True once a signal came or stop_after_minutes have passed; of several processes at the log's rhythm."""
        if self.accelerator.num_processes > 1 and step % self.run.log_every:
            return False
        limit = self.run.stop_after_minutes
        late = limit is not None and time.perf_counter() - self.started > 60 * limit
        return self._any(late or self.signal is not None)

    def stands_still(self, step: int, best: dict[str, Any] | None) -> bool:
        """True after an evaluation when early_stopping_patience of them, this one included, brought nothing better.

        Args:
            best: {"step": ...} of the best one; the main process knows it.
        """
        patience = self.run.early_stopping_patience
        if patience is None:
            return False
        return self._any(best is not None and step - best["step"] >= patience * self.run.eval_every)

    def _any(self, flag: bool) -> bool:
        """True if it is so in any of the processes."""
        if self.accelerator.num_processes == 1:
            return flag
        return bool(self.accelerator.reduce(torch.tensor(float(flag), device=self.accelerator.device), "sum") > 0)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the run after the step under way, with a checkpoint."""

        def remember(number: int, frame: Any) -> None:
            self.signal = number

        before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        except TorchDynamoException as error:
            if self.signal is None:
                raise
            # In a terminal it went to the compiler's processes too: there is no step to end.
            raise KeyboardInterrupt from error
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
