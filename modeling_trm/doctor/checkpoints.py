"""Whether the weights of a checkpoint are those that were published with its figures."""

from collections.abc import Iterator, Sequence

from ..utils.loading import CheckpointError, load_model
from .findings import Finding

AGAIN = "copy or download the checkpoint again"


def check_checkpoints(names: Sequence[str]) -> Iterator[Finding]:
    """One finding for each; one that does not load, or has other weights than its metrics.json names, is fatal."""
    for name in names:
        try:
            load_model(name, verify=True)
        except CheckpointError as error:
            yield Finding("checkpoints", name, str(error), AGAIN, fatal=True)
        else:
            yield Finding("checkpoints", name, "loads; its weights are those that metrics.json names")
