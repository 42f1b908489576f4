"""Which kernels the operators run: a choice of the moment, read from the config at every call and never saved with it.

Nothing here asks torch.compiler whether a graph is being exported: in torch 2.9 to 2.12 the answer inside torch.compile
is always yes. What exports says so, with `portable_kernels`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

from .configuration_trm import KERNELS


class KernelsMixin:
    """For a model whose `config` its operators read."""

    config: Any  # a TRMConfig; transformers states its own class

    def set_kernels(self, **backends: str) -> None:
        """Choose kernels by TRMConfig's names, `model.set_kernels(ssd_backend="triton")`; what is not named stays.

        Raises:
            TypeError: a name that chooses no kernels.
            StrictDataclassError, ValueError: a kernel that is unknown, or that cannot take this architecture.
        """
        unknown = sorted(backends.keys() - KERNELS.keys())
        if unknown:
            raise TypeError(f"set_kernels knows no {', '.join(unknown)}; allowed: {', '.join(KERNELS)}")
        chosen = copy(self.config)  # what is refused leaves the model's own as it was
        for name, backend in backends.items():
            setattr(chosen, name, backend)
        chosen.validate_architecture()
        vars(self.config).update(backends)

    @contextmanager
    def portable_kernels(self) -> Iterator[None]:
        """Inside, every operator runs plain PyTorch on every device: for torch.export, whose graph must run anywhere.

        Without it an exported graph holds the kernels that are chosen for the device it was traced on. On a CPU, and
        with every choice at "auto", those are the portable ones.
        """
        before = {name: vars(self.config)[name] for name in KERNELS}
        self.set_kernels(**KERNELS)
        try:
            yield
        finally:
            self.set_kernels(**before)
