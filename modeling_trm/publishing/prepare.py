"""Tell what a folder is, and choose and check what goes to the Hub."""

from pathlib import Path

from .contents import CONFIG, Contents, ContentsError, front_matter, parse_file
from .dataset import prepare_dataset
from .metric import is_metric, prepare_metric
from .page import is_page, prepare_page

KINDS = (
    "a checkpoint (config.json), a page (demo.json), a data set (README.md with configs:) or a metric (README.md with "
    "the tag metric)"
)


def prepare(folder: str | Path, repository: str, *, rerender_card: bool = False) -> Contents:
    """What of this folder goes to the repository `org/name`, checked; the folder is not changed.

    Args:
        rerender_card: of a checkpoint, make the card from metrics.json even where somebody wrote or changed it.

    Raises:
        ValueError: naming the file that is missing or wrong (ContentsError, CheckpointError).
        OSError: a file cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ContentsError(f"{folder}: is no folder; allowed: {KINDS}")
    if (folder / CONFIG).is_file():
        from .checkpoint import prepare_checkpoint  # imports PyTorch, which the other kinds need not wait for

        _check_model_type(folder / CONFIG)
        return prepare_checkpoint(folder, repository, rerender_card=rerender_card)
    if rerender_card:
        raise ContentsError(f"{folder}: is no checkpoint; --rerender-card is for the card of one")
    if not (folder / "README.md").is_file():
        raise ContentsError(f"{folder}: has neither config.json nor README.md; allowed: {KINDS}")
    if is_page(folder):
        return prepare_page(folder)
    card = front_matter(folder / "README.md")
    if "configs" in card:
        return prepare_dataset(folder, repository)
    if is_metric(folder, card):
        return prepare_metric(folder, repository)
    raise ContentsError(f"{folder / 'README.md'}: has neither configs: nor the tag metric; allowed: {KINDS}")


def _check_model_type(file: Path) -> None:
    from ..configuration_trm import TRMConfig

    config = parse_file(file)
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if model_type != TRMConfig.model_type:
        raise ContentsError(f"{file}: model_type is {model_type!r}; allowed: {TRMConfig.model_type!r}")
