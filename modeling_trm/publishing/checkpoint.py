"""A checkpoint's folder as a model repository: core, puzzle table, code, processor, card, figures, plots.

The folder itself is not changed, but for an update of its card that was killed, which is undone. Three things may
differ on the Hub: the code files of the installed package go along where the folder has none; the figures and the card
name the repository in the card's example; and a card that is what the template makes of metrics.json is made anew,
while one that somebody wrote or changed stays theirs.
"""

import glob
import re
import tempfile
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_imports

from ..cards.card import render_card, write_model_card
from ..cards.image import installed_code
from ..cards.update import WORKPLACE, finish_update, read_metrics
from ..operator_files_trm import HOOK, operator_files
from ..utils.loading import check_model_fits, load_model, load_processor
from ..utils.words import first_few
from .contents import CONFIG, Contents, ContentsError, collect, front_matter, parse_file, read_text, select

PROCESSOR, WEIGHTS, TABLE = "preprocessor_config.json", "model.safetensors", "puzzle_table.safetensors"
CARD, METRICS, REASONING = "README.md", "metrics.json", "reasoning_config.json"
PATTERNS = (
    CARD, METRICS, CONFIG, REASONING, PROCESSOR, TABLE, "*_trm.py", ".eval_results/*.yaml", "plots/*.png",
    "plots/*.gif", "LICENSE*", "NOTICE*",
)  # fmt: skip
# Which class each file must name for AutoModel and AutoProcessor to find the code.
AUTO_CLASSES = {CONFIG: ("AutoConfig", "AutoModel"), PROCESSOR: ("AutoFeatureExtractor",)}
EXAMPLE = re.compile(rb'^name = "[^"\r\n]*"(?=  # a folder or a Hub id\r?$)', re.MULTILINE)  # a line of the template's


def prepare_checkpoint(folder: Path, repository: str, *, rerender_card: bool = False) -> Contents:
    """Check the folder and choose its files.

    Args:
        rerender_card: make the card from metrics.json even where somebody wrote or changed it.

    Raises:
        ContentsError: a file is missing or wrong, or its code is incomplete.
        CheckpointError: the configuration, the processor or the weights do not load.
    """
    if (folder / WORKPLACE).is_dir():
        finish_update(folder)
    files = select(folder, [*PATTERNS, *map(glob.escape, _weights(folder))])
    for name in (CARD, CONFIG, PROCESSOR):
        if name not in files:
            raise ContentsError(f"{folder / name}: is missing; a checkpoint needs {CARD}, {CONFIG} and {PROCESSOR}")
    front_matter(folder / CARD)
    _check_that_it_loads(folder)
    modules = {module for name in AUTO_CLASSES for module in _auto_modules(folder / name)}
    code, notes = _code(folder, modules)
    files |= code
    if METRICS in files:
        card, card_notes = _card(folder, repository, rerender_card)
        files, notes = files | card, notes + card_notes
    elif rerender_card:
        raise ContentsError(f"{folder / METRICS}: is missing; {CARD} can only be rendered from it")
    return collect(folder, "checkpoint", "model", files, notes)


def _weights(folder: Path) -> list[str]:
    """model.safetensors, or the index of a sharded model and its shards; nothing else that may lie there."""
    index = folder / f"{WEIGHTS}.index.json"
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    if not index.is_file():
        raise ContentsError(f"{folder / WEIGHTS}: is missing; a checkpoint goes to the Hub as safetensors")
    try:
        shards = sorted(set(parse_file(index)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContentsError(f"{index}: is no index of shards: {error!r}") from error
    for name in shards:
        if Path(name).name != name or not (folder / name).is_file():
            raise ContentsError(f"{index}: names the shard {name!r}, which is not in the folder")
    return [index.name, *shards]


def _check_that_it_loads(folder: Path) -> None:
    """With the installed classes: every weight is there, of its size and finite, the processor fits the model."""
    processor, model = load_processor(str(folder)), load_model(str(folder))
    check_model_fits(model, processor)
    if model.config.puzzle_prefix_len and not (folder / TABLE).is_file():
        raise ContentsError(
            f"{folder / TABLE}: is missing, but {CONFIG} says puzzle_prefix_len={model.config.puzzle_prefix_len}"
        )


def _auto_modules(file: Path) -> list[str]:
    """The code files that auto_map of a JSON file names. Raises ContentsError when one of its classes is missing."""
    auto_map: Any = parse_file(file).get("auto_map", {})
    needed = AUTO_CLASSES[file.name]
    if not isinstance(auto_map, dict):
        raise ContentsError(f"{file}: auto_map is {auto_map!r}, no mapping of {', '.join(needed)} to their code")
    missing = [name for name in needed if not isinstance(auto_map.get(name), str)]
    if missing:
        raise ContentsError(f"{file}: auto_map has no {', '.join(missing)}; save the checkpoint with save_pretrained")
    return [f"{auto_map[name].split('--')[-1].split('.')[0]}.py" for name in needed]


def _code(folder: Path, modules: set[str]) -> tuple[dict[str, Path | bytes], list[str]]:
    """The code that the folder lacks, and notes. The folder's own code goes as it is, if it is whole."""
    installed = installed_code()
    own = {file.name: file for file in folder.glob("*_trm.py")}
    brought = sorted(operator_files(folder))
    notes = [f"code of the checkpoint's own operators goes along: {first_few(brought)}"] if brought else []
    ours = own.keys() - ({*brought, HOOK.name} if brought else set())
    other = sorted(
        name for name in ours if name not in installed or own[name].read_bytes() != installed[name].read_bytes()
    )
    missing = sorted(_missing_code(own, modules))
    if not missing:
        older = [f"code of another version than the installed one goes as it is: {first_few(other)}"] if other else []
        return {}, notes + older
    if other:
        raise ContentsError(
            f"{folder}: its code lacks {first_few(missing)}, and {first_few(other)} is of another version than the "
            f"installed one; remove *_trm.py there to publish the installed code"
        )
    unknown = sorted(modules.union(missing) - own.keys() - installed.keys())
    if unknown:
        raise ContentsError(f"{folder}: its code needs {first_few(unknown)}, which is neither there nor in the package")
    added = {name: file for name, file in installed.items() if name not in own}
    return dict(added), [*notes, f"{len(added)} code files of the installed package were added"]


def _missing_code(own: dict[str, Path], modules: set[str]) -> set[str]:
    """What the modules import, directly or not, and is not there."""
    seen: set[str] = set()
    todo = set(modules)
    while todo:
        name = todo.pop()
        seen.add(name)
        if name in own:
            todo |= {f"{module}.py" for module in get_relative_imports(own[name])} - seen
    return seen - own.keys()


def _card(folder: Path, repository: str, rerender: bool) -> tuple[dict[str, Path | bytes], list[str]]:
    """README.md, metrics.json and .eval_results/ for this repository, in memory, and a note on the card."""
    try:
        metrics = read_metrics(folder)
        is_templates = read_text(folder / CARD) == render_card(folder, metrics)
        made = _rendered(folder, metrics, repository)
    except ContentsError:
        raise
    except ValueError as error:  # of read_metrics, which has named the file
        raise ContentsError(str(error)) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ContentsError(f"{folder / METRICS}: no card can be made of it: {error!r}") from error
    if is_templates or rerender:
        return made, [f"{CARD} was rendered from {METRICS} for {repository}"]
    made[CARD] = _with_example(folder / CARD, repository)
    return made, [
        f"{CARD} is not what the template makes of {METRICS}: it goes as it is, its example for {repository} "
        f"(--rerender-card replaces it)"
    ]


def _rendered(folder: Path, metrics: dict[str, Any], repository: str) -> dict[str, Path | bytes]:
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary, folder.resolve().name)
        copy.mkdir()
        for name in (CONFIG, PROCESSOR, REASONING):
            if (folder / name).is_file():
                (copy / name).write_bytes((folder / name).read_bytes())
        (copy / "plots").symlink_to((folder / "plots").resolve())  # the card shows what is there
        write_model_card(copy, metrics, repository=repository)
        made = select(copy, (CARD, METRICS, ".eval_results/*.yaml"))
        return {path: (copy / path).read_bytes() for path in made}


def _with_example(card: Path, repository: str) -> bytes:
    """A card that is not the template's, with the repository in the template's example."""
    text, count = EXAMPLE.subn(f'name = "{repository}"'.encode(), card.read_bytes())
    if not count and repository.encode() not in text:
        raise ContentsError(
            f"{card}: is not what the template makes of {METRICS}, and has neither the template's example nor the name "
            f"{repository}; name it there, or give --rerender-card to replace the card"
        )
    return text
