"""A checkpoint of the public TinyRecursiveModels code as a folder of ours. Source: arXiv 2510.04871, public code.

Shapes: N rows of the table of E numbers each, D hidden.
"""

import re
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cards.card import write_model_card
from ..modeling_trm import TRMForGridReasoning
from ..processing_trm import GridProcessor
from ..puzzle_index_trm import PuzzleIndex
from ..utils.files import replaced
from ..utils.manifest import weights_sha256
from ..utils.outputs import check_new_folder
from .architecture import Architecture, choose_processor, resolve
from .checkpoint_file import Checkpoint, ConversionError, read_file
from .given import CONFIG_FILE, Said, gather, read_fields, tells_cycles
from .identifiers import read_identifiers
from .layout import TABLE, Layout, read_layout
from .nano_trm import is_nano_trm, read_nano_trm
from .relatives import refuse_relatives

LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
DTYPES = ("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64")
ROWS_AT_ONCE = 65536  # of the table, when it is looked through: 128 MB of 512 channels


def convert_reference(
    path: str | Path,
    output: str | Path,
    *,
    arch: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    entry: str | None = None,
    task: str | None = None,
    grid_shape: tuple[int, int] | None = None,
    alphabet: str | None = None,
    identifiers: str | Path | None = None,
    subset: str | None = None,
    license: str | None = None,
    command: str | None = None,
) -> dict[str, str]:
    """Write config, core, puzzle table, processor, code and card into a new folder, whole or not at all.

    Args:
        path: the file. arch: the reference's arch YAML; all_config.yaml beside the file is found without it.
        options: fields of that YAML given by hand, for example {"H_cycles": 3}.
        entry: which state dict, where the file holds several.
        task, grid_shape, alphabet: as GridProcessor takes them; by default what the vocabulary tells.
        identifiers: the reference's identifiers.json; without it rows are numbered. subset: see `read_identifiers`.
        license: the Hub's name for the licence of these weights, such as "mit"; None: the card names none.
        command: the command line, for the card.

    Returns:
        The facts that the card records, name -> text.

    Raises:
        ConversionError: naming the file or field, the value and what is allowed; nothing has been written.
        ValueError: `output` holds something, or cannot be made; see `utils.outputs.check_new_folder`.
    """
    output = Path(output)
    check_new_folder(output, overwrite=None)
    licensed = {} if license is None else {"license": _checked_license(license)}
    beside = Path(path).with_name(CONFIG_FILE)
    arch = beside if arch is None and beside.is_file() else arch
    checkpoint, own, grids = _read(path, entry, arch, options or {}, task, grid_shape)
    layout = read_layout(checkpoint.tensors, str(path))
    said = gather(own, arch, options or {})
    processor, how = grids or choose_processor(layout, str(path), task, grid_shape, alphabet)
    architecture = resolve(layout, said, processor, str(path))
    _check_values(checkpoint)
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in checkpoint.tensors.values()))
    index = _index(architecture, identifiers, subset)
    model = _build(checkpoint, layout, architecture, dtype, index)
    facts = {"command": command} if command else {}
    facts |= {"task": f"{processor.task}, {' x '.join(map(str, processor.grid_shape))} ({how})"}
    facts |= checkpoint.facts | architecture.facts | _more_facts(checkpoint, layout, said, dtype)
    if identifiers is not None:
        named = f", named {subset}/..." if subset else ""
        facts["identifiers"] = f"{Path(identifiers).name}: {len(index.tasks):,} tasks{named}"
    record = {"source": checkpoint.path.name, "sha256": checkpoint.sha256(), "facts": facts}
    record |= {"reference": _only_there(checkpoint, said, dtype)}
    with replaced(output) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        write_model_card(folder, licensed | {"evaluations": {}, "conversion": record} | _weights(folder))
    return facts


def _read(
    path: str | Path,
    entry: str | None,
    arch: str | Path | None,
    options: Mapping[str, Any],
    task: str | None,
    grid_shape: tuple[int, int] | None,
) -> tuple[Checkpoint, dict[str, Any], tuple[GridProcessor, str] | None]:
    """The state dict in the reference's names, the fields that the file itself tells, and its grids where it does.

    An arch YAML stands for what the file says: from a copy of it a field can be taken out.
    """
    file, own = read_file(path), dict[str, Any]()
    grids: tuple[GridProcessor, str] | None = None
    refuse_relatives(file.names, str(path))
    checkpoint = file.choose(entry)
    if is_nano_trm(checkpoint):
        checkpoint, own, processor = read_nano_trm(checkpoint, options, task, grid_shape)
        grids = None if processor is None else (processor, "told by its token ids")
    elif arch is None and tells_cycles(file.settings):
        own = read_fields(file.settings, str(path))
    _check_kinds(checkpoint)
    return checkpoint, own, grids


def _weights(folder: Path) -> dict[str, Any]:
    return {"weights": weights_sha256(folder)}


def _checked_license(name: str) -> str:
    if not LICENSE.fullmatch(name):
        raise ConversionError(
            f"--license {name!r}: is no licence id of the Hub; allowed: such as mit, apache-2.0, other"
        )
    return name


def _check_kinds(checkpoint: Checkpoint) -> None:
    """Quantised, sparse and empty (meta) weights: nothing is lost or made up on the way, so they are refused."""
    for name, tensor in checkpoint.tensors.items():
        kind = str(tensor.dtype)
        if tensor.layout != torch.strided:
            kind += f" of layout {tensor.layout}"
        if tensor.is_meta:
            kind += " on the meta device (a shape without values)"
        if kind not in DTYPES:
            raise ConversionError(f"{checkpoint.path}: {name} is {kind}; allowed: dense {', '.join(DTYPES)}")


def _check_values(checkpoint: Checkpoint) -> None:
    for name, tensor in checkpoint.tensors.items():
        for part in tensor.split(ROWS_AT_ONCE):
            if not part.isfinite().all():
                raise ConversionError(f"{checkpoint.path}: {name} holds NaN or infinity")


def _index(architecture: Architecture, identifiers: str | Path | None, subset: str | None) -> PuzzleIndex:
    rows = architecture.config.num_puzzles
    if identifiers is None:
        return PuzzleIndex.numbered(rows)
    if not architecture.config.puzzle_prefix_len:
        raise ConversionError(f"{identifiers}: the checkpoint has no puzzle table that it could describe")
    return read_identifiers(identifiers, rows, subset)


def _build(
    checkpoint: Checkpoint, layout: Layout, architecture: Architecture, dtype: torch.dtype, index: PuzzleIndex
) -> TRMForGridReasoning:
    config = architecture.config
    weights = {ours: checkpoint.tensors[name].to(dtype) for name, ours in layout.our_names().items()}
    if config.puzzle_prefix_len:
        weights["model.puzzle_emb.weight"] = _table(checkpoint.tensors.get(TABLE), config.hidden_size).to(dtype)
    _part_storages(weights)
    with torch.device("meta"):  # the weights are put in place as they are; a table of gigabytes is not copied
        model = TRMForGridReasoning(config)
    model.load_state_dict(weights, assign=True)
    if config.puzzle_prefix_len:
        model.set_puzzle_index(index)
    return model.eval()


def _part_storages(weights: dict[str, Tensor]) -> None:
    """Give weights that lie in one storage (tied ones, views of one tensor) their own: save_pretrained wants that."""
    taken: set[int] = set()
    for name, tensor in weights.items():
        address = tensor.untyped_storage().data_ptr()
        if address in taken:
            weights[name] = tensor.clone()
        taken.add(address)


def _table(rows_NE: Tensor | None, width: int) -> Tensor:
    """[N, D]: rows padded with zeros, as the reference fills its prefix; without a table one blank row."""
    if rows_NE is None:
        return torch.zeros(1, width)
    return rows_NE if rows_NE.shape[1] == width else F.pad(rows_NE, (0, width - rows_NE.shape[1]))


def _more_facts(checkpoint: Checkpoint, layout: Layout, said: Said, dtype: torch.dtype) -> dict[str, str]:
    found = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in checkpoint.tensors.values()})
    kept = str(dtype).removeprefix("torch.")
    forward = said.values.get("forward_dtype")
    facts = {
        "from the tensors": f"{layout.layers} layers of {layout.mixer} and mlp, hidden_size {layout.hidden_size}, "
        f"inner width {layout.inner}, {layout.vocab_size} token ids",
        "precision": kept if found == [kept] else f"{kept}, the widest of {', '.join(found)}",
    }
    if forward not in (None, kept):
        facts["precision"] += f"; the reference computes in {forward}: use autocast for the same arithmetic"
    return facts


def _only_there(checkpoint: Checkpoint, said: Said, dtype: torch.dtype) -> dict[str, Any]:
    """What our folder cannot say otherwise and the way back needs: `to_reference` reads it."""
    narrower = {name: str(t.dtype).removeprefix("torch.") for name, t in checkpoint.tensors.items() if t.dtype != dtype}
    record: dict[str, Any] = {"dtypes": narrower}
    if TABLE in checkpoint.tensors:
        record["puzzle_emb_ndim"] = checkpoint.tensors[TABLE].shape[1]
    if "forward_dtype" in said.values:
        record["forward_dtype"] = said.get("forward_dtype")
    return record
