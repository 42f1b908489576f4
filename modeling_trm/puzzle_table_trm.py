"""The puzzle table: one learned vector a puzzle, and its own file beside the core.

Source: arXiv 2510.04871, section 2, and the public code's models/sparse_embedding.py, where the table is part of the
weights. Here it is apart from them, and says what its rows are (`PuzzleIndex`), so that a checkpoint can be extended
by new tasks, trimmed, and loaded without its table or with a few rows of it.

puzzle_table.safetensors:
  weight               [N, D]
  task_of_row          int32 [N], number of the task in the metadata's `tasks`; -1 for row 0, the blank puzzle
  augmentation_of_row  uint8 [N, 11], the dihedral number, then the colour that each of the colours 0..9 becomes
  metadata             "trm-puzzle-table": JSON list of the names of the tasks

Shapes: N rows of the table, n of them read, D hidden.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.utils import cached_file

from .puzzle_index_trm import BLANK_ROW, PuzzleIndex, checked_names

logger = logging.getLogger(__name__)
TASKS = "trm-puzzle-table"  # the one key of the metadata: safetensors writes several in random order
CORE_FILE = "model.safetensors"
TRAINER_STATE = "trainer_state.json"  # of a checkpoint of transformers' Trainer
TABLE_KEY = "puzzle_emb.weight"  # of a state dict, behind the name of the base model
TENSORS = ("augmentation_of_row", "task_of_row", "weight")
ROWS_AT_ONCE = 16384  # read and checked together: 32 MB of 512 channels


class PuzzleTable(nn.Embedding):
    """One row of D channels a puzzle, zero at first.

    `sparse`, as every nn.Embedding has it, may be changed at any time: with it the gradient is of the rows of a batch
    alone, which SignSGD takes and PyTorch's AdamW, clipping of gradients and DistributedDataParallel do not.

    Args:
        num_embeddings: N, the blank row included. embedding_dim: D.
    """

    _index: PuzzleIndex | None

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__(num_embeddings, embedding_dim)
        self._index = None

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

    @property
    def index(self) -> PuzzleIndex:
        """What the rows are; numbered by row until it is set."""
        if self._index is None:
            self._index = PuzzleIndex.numbered(self.num_embeddings)
        return self._index

    @index.setter
    def index(self, index: PuzzleIndex) -> None:
        if len(index) != self.num_embeddings:
            raise ValueError(f"the index describes {len(index)} rows, the puzzle table has {self.num_embeddings}")
        self._index = index

    def replace(self, weight_ND: Tensor, index: PuzzleIndex) -> None:
        """Other rows in the place of all present ones, on their device and in their type, as a new parameter."""
        weight_ND = weight_ND.detach().to(device=self.weight.device, dtype=self.weight.dtype)
        self.weight = nn.Parameter(weight_ND, requires_grad=self.weight.requires_grad)
        self.num_embeddings = len(weight_ND)
        self.index = index

    def mean_row(self) -> Tensor:
        """[D], the mean of all rows but the blank one, which stands in where it is the only one."""
        return self.weight[min(1, self.num_embeddings - 1) :].mean(0)


class PuzzleTableMixin:
    """What a model does with its puzzle table as a whole; with puzzle_prefix_len=0 there is none.

    `add_tasks`, `adopt_tasks` and `trim_tasks` put a new parameter in the place of the table's: build optimisers
    afterwards.
    """

    config: Any
    base_model: Any
    num_parameters: Callable[..., int]
    _folders: tuple[Path, ...] = ()  # that this model's table was read from or saved in

    @property
    def puzzle_index(self) -> PuzzleIndex | None:
        """What the rows of the puzzle table are; None without a prefix."""
        table = self.base_model.puzzle_emb
        return None if table is None else table.index

    def set_puzzle_index(self, index: PuzzleIndex) -> None:
        """Say what the rows are. Raises ValueError for an index of another length than config.num_puzzles."""
        self._puzzle_table().index = index

    def add_tasks(self, index: PuzzleIndex, init: str = "mean") -> np.ndarray:
        """Append the rows of an index, its blank row apart. Returns their row numbers (int64), in the index's order.

        Args:
            init: "mean", all start as the mean of the present rows but the blank one (of the blank one, if it is
                alone); "zeros", as in a fresh table.

        Raises:
            ValueError: naming the tasks that the table has already, or an unknown init.
        """
        table = self._puzzle_table()
        if init not in ("mean", "zeros"):
            raise ValueError(f"init={init!r} is unknown; allowed: mean, zeros")
        joined, before = table.index.joined(index), len(table.index)
        with torch.no_grad():
            row_D = table.mean_row() if init == "mean" else torch.zeros_like(table.weight[0])
            weight_ND = torch.cat((table.weight, row_D.expand(len(joined) - before, -1)))
        self._replace_table(weight_ND, joined)
        return np.arange(before, len(joined))

    def trim_tasks(self, tasks: Iterable[str]) -> np.ndarray:
        """Keep the blank row and the rows of these tasks, in the present order. Returns their former row numbers.

        Raises:
            ValueError: naming a task that the table does not have.
        """
        table = self._puzzle_table()
        index, rows = table.index.select(tasks)
        self._replace_table(table.weight[torch.from_numpy(rows).to(table.weight.device)], index)
        return rows

    @torch.no_grad()
    def adopt_tasks(self, index: PuzzleIndex) -> None:
        """A table for another index: rows of the same task and augmentation are kept, new ones start at the mean row.

        Unlike `add_tasks`, the rows are then exactly those of the index, in its order, so its puzzle ids hold.
        """
        table = self._puzzle_table()
        before, weight_ND = table.index, table.mean_row().expand(len(index), -1).clone()
        weight_ND[BLANK_ROW] = table.weight[BLANK_ROW]
        for task, known in ((task, before.name_of(task)) for task in index.tasks):
            if known is None:
                continue
            old_row = {before.augmentation_of_row[row].tobytes(): int(row) for row in before.rows_of(known)}
            rows = [(row, old_row.get(index.augmentation_of_row[row].tobytes())) for row in index.rows_of(task)]
            for row, old in rows:
                if old is not None:
                    weight_ND[int(row)] = table.weight[old]
        self._replace_table(weight_ND, index)

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> Any:
        """As PyTorch's. transformers' Trainer fills a model with the weights of a checkpoint's core alone (not strict).

        Where this model was read from that checkpoint or saved in it (load_best_model_at_end), its table comes along.

        Raises:
            ValueError: a core comes without the table that was trained with it.
        """
        table, ours = self.base_model.puzzle_emb, self.state_dict()  # type: ignore[attr-defined]
        if not strict and table is not None and table.weight.requires_grad:
            core = {name: value for name, value in ours.items() if not name.endswith(TABLE_KEY)}
            if core.keys() == state_dict.keys():
                # A core that is not trained is that of every checkpoint, and tells nothing of the table.
                tells = any(value.requires_grad for value in self.parameters() if value is not table.weight)  # type: ignore[attr-defined]
                self._find_table(state_dict, has_it=tells and _are_equal(core, state_dict))
        return super().load_state_dict(state_dict, strict, assign)  # type: ignore[misc]

    def _find_table(self, core: Mapping[str, Tensor], has_it: bool) -> None:
        """Fill in the table that the Trainer saved with a core; has_it: the model's own is known to be that one."""
        checkpoints = [folder for folder in self._folders if (folder / TRAINER_STATE).is_file()]
        found = [folder for folder in checkpoints if _holds(folder, core)]
        if len(found) > 1:  # from a core that is not trained: the last of them says which was the best
            state = json.loads((checkpoints[-1] / TRAINER_STATE).read_text(encoding="utf-8"))
            found = [Path(state["best_model_checkpoint"] or checkpoints[-1])]
        if found:
            self._fill_table(found[0] / table_file_name(None))
        elif not has_it:
            raise ValueError(
                f"these weights come without their puzzle table, which is in {table_file_name(None)} beside them: give "
                f"the Trainer the model that from_pretrained makes of the checkpoint, then resume; or, if the table is "
                f"not to be trained, freeze it with model.model.puzzle_emb.requires_grad_(False)"
            )

    @torch.no_grad()
    def _fill_table(self, path: Path) -> None:
        """The rows of a file in the place of the present ones, in the same parameter."""
        table = self._puzzle_table()
        N, D = table.weight.shape
        table.weight.copy_(read_table(str(path), width=D, rows=N, tasks=None, dtype=table.weight.dtype)[0])

    def num_parameters_table(self) -> int:
        """Parameters of the puzzle table; reports state a model's size as core + table."""
        table = self.base_model.puzzle_emb
        return 0 if table is None else table.weight.numel()

    def num_parameters_core(self) -> int:
        """All parameters but the puzzle table."""
        return self.num_parameters() - self.num_parameters_table()

    def load_table(
        self, name: Any, rows: int, puzzle_tasks: Iterable[str] | None, variant: str | None, download: dict[str, Any]
    ) -> None:
        """The table's part of from_pretrained: put the rows asked for in the place of the blank one.

        Args:
            name: folder or Hub id; `variant` and `download` as transformers takes them. rows: N as the config says.
        """
        tasks = None if puzzle_tasks is None else checked_names("puzzle_tasks", puzzle_tasks)
        table, file_name = self.base_model.puzzle_emb, table_file_name(variant)
        if table is None and tasks:
            raise ValueError(f"puzzle_tasks={tasks}: {name} has no puzzle table (puzzle_prefix_len=0)")
        if table is None or tasks == ():
            return
        path = find_table(name, file_name, **download)
        if path is not None:
            width, dtype = self.config.puzzle_width, table.weight.dtype
            self._replace_table(*read_table(path, width=width, rows=rows, tasks=tasks, dtype=dtype))
            self._folders = (Path(path).parent,)
        elif tasks:
            raise ValueError(f"puzzle_tasks={tasks}: {name} has no {file_name}")
        else:
            logger.warning(
                f"{name} has no {file_name}: of the {rows} rows of its puzzle table there is only the blank one, zero "
                f"(puzzle_tasks=[] says that this is meant)"
            )

    def save_table(
        self, folder: Any, state_dict: dict[str, Tensor] | None = None, variant: str | None = None, **_: Any
    ) -> None:
        """The table's part of save_pretrained, whose arguments these are; nothing without a table."""
        table = self.base_model.puzzle_emb
        if table is not None:
            given = (value for key, value in (state_dict or {}).items() if key.endswith(TABLE_KEY))
            Path(folder).mkdir(parents=True, exist_ok=True)
            write_table(Path(folder, table_file_name(variant)), next(given, table.weight), table.index)
            self._folders = (*self._folders, Path(folder))

    def _replace_table(self, weight_ND: Tensor, index: PuzzleIndex) -> None:
        self._puzzle_table().replace(weight_ND, index)
        self.config.num_puzzles = len(index)

    def _puzzle_table(self) -> PuzzleTable:
        table = self.base_model.puzzle_emb
        if table is None:
            raise ValueError(f"puzzle_prefix_len={self.config.puzzle_prefix_len}: the model has no puzzle table")
        return table


def _are_equal(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(value, theirs[name].to(value)) for name, value in ours.items())


def _holds(folder: Path, core: Mapping[str, Tensor]) -> bool:
    """Whether these weights lie in the folder, beside a table."""
    path = folder / CORE_FILE
    if not path.is_file() or not (folder / table_file_name(None)).is_file():
        return False
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        return names == core.keys() and all(torch.equal(file.get_tensor(name), core[name].cpu()) for name in names)


# --- the file -------------------------------------------------------------------------------------------------------


def table_file_name(variant: str | None) -> str:
    """Beside model.safetensors, or model.<variant>.safetensors."""
    return ".".join(filter(None, ("puzzle_table", variant, "safetensors")))


def find_table(folder_or_hub_id: str, file_name: str, **download: Any) -> str | None:
    """Path of the table's file, downloaded if need be; None if there is none. Raises OSError if that is not known."""
    try:
        return cached_file(folder_or_hub_id, file_name, **download)
    except OSError as error:
        if error.__cause__ is None:  # looked, and it is not there; what kept the Hub from answering is a cause
            return None
        raise OSError(f"{error} (looking for {file_name}; puzzle_tasks=[] loads the core without it)") from error


def write_table(path: Path, weight_ND: Tensor, index: PuzzleIndex) -> None:
    """Write the table's file, whole or not at all."""
    tensors = {
        "weight": weight_ND.detach().contiguous(),
        "task_of_row": torch.tensor(index.task_of_row),
        "augmentation_of_row": torch.tensor(index.augmentation_of_row),
    }
    metadata = {TASKS: json.dumps(index.tasks)}
    part = path.with_name(f".{path.name}.trm-part")  # one name: what a killed process left is written over
    try:
        save_file(tensors, part, metadata)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_table(
    path: str, *, width: int, rows: int, tasks: Iterable[str] | None, dtype: torch.dtype
) -> tuple[Tensor, PuzzleIndex]:
    """The table of a file, or the blank row and the rows of `tasks` alone; only these are read.

    Args:
        width: D that the model has. rows: N that the config names. dtype: of the result.

    Raises:
        ValueError: naming the file and what is wrong with it, or a task that it does not have.
    """
    try:
        with safe_open(path, framework="pt") as file:
            index = _read_index(file)
            weight = file.get_slice("weight")
            shape = weight.get_shape()
            if not weight.get_dtype().startswith(("F", "BF")):
                raise ValueError(f"weight holds {weight.get_dtype()}; allowed: floating-point numbers")
            if shape != [len(index), width] or len(index) != rows:
                raise ValueError(
                    f"weight is {shape} and {len(index)} rows are described; the config says [num_puzzles={rows}, "
                    f"puzzle_width={width}]"
                )
            index, kept = (index, np.arange(rows)) if tasks is None else index.select(tasks)
            return _read_rows(weight, kept, torch.empty(len(kept), width, dtype=dtype)), index
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"puzzle table {path}: {error}") from error


def _read_index(file: Any) -> PuzzleIndex:
    metadata = file.metadata() or {}
    if TASKS not in metadata or sorted(file.keys()) != list(TENSORS):
        raise ValueError(f"this is no puzzle table: it holds {sorted(file.keys())} and metadata on {sorted(metadata)}")
    return PuzzleIndex(
        json.loads(metadata[TASKS]),
        file.get_tensor("task_of_row").numpy(),
        file.get_tensor("augmentation_of_row").numpy(),
    )


def _read_rows(weight: Any, kept: np.ndarray, out_nD: Tensor) -> Tensor:
    """Fill `out` with the rows `kept` (ascending) of a safetensors slice."""
    done = 0
    for first, end in _runs(kept):
        part = weight[first:end]
        if not part.isfinite().all():
            raise ValueError(f"weight is NaN or infinite in rows {first}..{end - 1}")
        out_nD[done : done + len(part)] = part
        done += len(part)
    return out_nD


def _runs(kept: np.ndarray) -> Iterator[tuple[int, int]]:
    """[first, end) of the runs of consecutive numbers, none longer than ROWS_AT_ONCE."""
    for run in np.split(kept, np.flatnonzero(np.diff(kept) != 1) + 1):
        first, end = int(run[0]), int(run[-1]) + 1
        yield from ((start, min(start + ROWS_AT_ONCE, end)) for start in range(first, end, ROWS_AT_ONCE))
