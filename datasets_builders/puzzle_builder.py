"""The base of the `datasets` builders: any source that load_puzzles reads, as a DatasetDict of checked text rows.

A builder is imported and called (`datasets` runs no scripts any more):

    from datasets_builders.sudoku import Sudoku
    builder = Sudoku(subset=1000, seed=0)
    builder.download_and_prepare()
    puzzles = builder.as_dataset(split="train")
"""

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import datasets

from datasets_builders.features import load_puzzles
from datasets_builders.sources import open_source

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_TABLE = 10_000


class PuzzleBuilder(datasets.ArrowBasedBuilder):
    """Builder of one task.

    Args:
        cache_dir: as in `datasets`.
        subset: applies to the train split; the other splits stay whole.
        options: data_dir, data_files, dataset, seed, on_bad_row, validate, grid_shape, columns, characters
            and so on, as in `load_puzzles`.
    """

    VERSION = datasets.Version("1.0.0")
    TASK: ClassVar[str]
    DESCRIPTION: ClassVar[str]

    def __init__(self, cache_dir: str | None = None, subset: int | None = None, **options: Any):
        self.source = {name: options.pop(name, None) for name in ("data_dir", "data_files", "dataset")}
        self.subset = subset
        self.options = options
        # `datasets` names its cache by this hash; without the files' contents in it, a changed file would go unseen.
        key = [str(self.VERSION), open_source(self.TASK, **self.source).key(), subset, sorted(options.items())]
        super().__init__(cache_dir=cache_dir, hash=hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32])

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(description=self.DESCRIPTION)  # the rows tell whether ratings are whole

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        splits = open_source(self.TASK, **self.source).splits()
        return [datasets.SplitGenerator(name=split, gen_kwargs={"split": split}) for split in splits]

    def _generate_tables(self, split: str) -> Iterator[tuple[tuple[int, int], "pa.Table"]]:
        subset = self.subset if split == "train" else None
        table = load_puzzles(self.TASK, split, subset=subset, **self.source, **self.options).to_table()
        for number, start in enumerate(range(0, table.num_rows, ROWS_PER_TABLE)):
            yield (0, number), table.slice(start, ROWS_PER_TABLE)
