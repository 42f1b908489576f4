"""The votes of an evaluation in memory: merged from the folders of all its processes. Format: `folder`.

The published evaluator (TRM, arXiv 2510.04871) adds up the votes of every evaluation round of a run, which is an
ensemble of checkpoints. Here one evaluation is one checkpoint; adding up has to be asked for, and is named in the
manifest.

Fields of `VoteRecords.manifest`:

    task, protocol                   "arc", "transductive" | "inductive"; protocol None for other tasks
    data_fingerprint                 SHA-256 of the test inputs;  views_fingerprint: of their augmentations too
    weights_sha256, model            of the parameters and the config; the name that the checkpoint was loaded by
    max_steps, halt                  supervision steps; False, True or a probability: `model.solve`
    num_views, num_items, chunk_size largest number of views of an input; votes in all; votes of a file
    mean_steps, non_finite_votes     found when loading: steps taken; votes with a NaN halt logit (probability 0 here)
    accumulated                      only with accumulate=True and several evaluations: their manifests
    ...                              whatever the evaluation added: hardware, versions, command

Shapes: M votes, N test inputs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .folder import (
    TestInput,
    chunk_path,
    chunks_done,
    differing_field,
    num_chunks,
    read_chunk,
    read_inputs,
    read_manifest,
)

__all__ = ["TestInput", "VoteRecords", "load_records"]

ACCUMULATION_IDENTITY = ("format", "task", "protocol", "data_fingerprint")  # even votes that add up agree in these


@dataclass(frozen=True, eq=False)
class VoteRecords:
    """Votes and what they are about. `grid_of_vote` indexes `grids`; -1: the model's answer was no grid."""

    manifest: dict[str, Any]
    inputs: tuple[TestInput, ...]
    input_of_vote: np.ndarray  # int32 [M]
    view_of_vote: np.ndarray  # int32 [M]
    grid_of_vote: np.ndarray  # int32 [M]
    halt_probability: np.ndarray  # float64 [M]
    grids: tuple[str, ...]  # each once

    def __len__(self) -> int:
        return len(self.input_of_vote)

    @cached_property
    def _votes_by_input(self) -> list[np.ndarray]:
        """The numbers of each input's votes, in their order."""
        order_M = np.argsort(self.input_of_vote, kind="stable")
        ends = np.searchsorted(self.input_of_vote[order_M], np.arange(len(self.inputs) + 1))
        return [order_M[start:end] for start, end in pairwise(ends)]

    def of_input(self, number: int) -> tuple[list[str], list[float]]:
        """Predictions of one test input ("" = no grid) and their halt probabilities, one entry a vote."""
        votes = self._votes_by_input[number]
        predictions = ["" if grid < 0 else self.grids[grid] for grid in self.grid_of_vote[votes].tolist()]
        return predictions, self.halt_probability[votes].tolist()


def load_records(*folders: str | Path, accumulate: bool = False) -> VoteRecords:
    """Merge the folders of one evaluation; a chunk that several of them hold counts once.

    Args:
        accumulate: let folders of different evaluations (checkpoints, steps, views) of the same test inputs add up.

    Raises:
        ValueError: naming the field in which manifests differ with both values, the chunks that are missing, or the
            file that is unreadable.
    """
    if not folders:
        raise ValueError("no folder of votes was given")
    paths = [Path(folder) for folder in folders]
    manifests = [read_manifest(path) for path in paths]
    evaluations = _group(paths, manifests, accumulate)
    inputs = read_inputs(paths[0], manifests[0])
    grids = Grids()
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("input", "view", "grid", "halt_probability", "steps")}
    view_offset = 0
    for manifest, members in evaluations:
        for table in _chunks(members, manifest, len(inputs)):
            columns["view"].append(table["view"].to_numpy() + np.int32(view_offset))
            columns["grid"].append(grids.numbers(table))
            for name in ("input", "halt_probability", "steps"):
                columns[name].append(table[name].to_numpy())
        view_offset += manifest["num_views"]
    _check_counted_once(paths, columns)
    votes = {name: np.concatenate(parts) for name, parts in columns.items()}
    return _records([manifest for manifest, _ in evaluations], inputs, votes, tuple(grids.texts))


def _group(
    paths: Sequence[Path], manifests: Sequence[dict[str, Any]], accumulate: bool
) -> list[tuple[dict[str, Any], list[Path]]]:
    """(manifest, folders) of every evaluation among the folders."""
    groups: list[tuple[dict[str, Any], list[Path]]] = []
    for path, manifest in zip(paths, manifests, strict=True):
        same = [members for known, members in groups if differing_field(known, manifest) is None]
        if same:
            same[0].append(path)
            continue
        if groups:
            _check_may_add_up(groups[0], (manifest, [path]), accumulate)
        groups.append((manifest, [path]))
    return groups


def _check_may_add_up(
    one: tuple[Mapping[str, Any], list[Path]], other: tuple[Mapping[str, Any], list[Path]], accumulate: bool
) -> None:
    field = (
        differing_field(one[0], other[0], ACCUMULATION_IDENTITY) if accumulate else differing_field(one[0], other[0])
    )
    if field is not None:
        hint = "" if accumulate else "; accumulate=True adds up the votes of several checkpoints"
        raise ValueError(
            f"{one[1][0]} and {other[1][0]} are not one evaluation: {field} is {one[0].get(field)!r} in the first, "
            f"{other[0].get(field)!r} in the second{hint}"
        )


def _chunks(folders: Sequence[Path], manifest: Mapping[str, Any], num_inputs: int) -> Iterator[pa.Table]:
    """The votes of one evaluation in the order of its work items, a file at a time."""
    holder: dict[int, Path] = {}
    for folder in folders:
        for number in chunks_done(folder):
            holder.setdefault(number, folder)
    total = num_chunks(manifest)
    unknown = sorted(number for number in holder if number >= total)
    if unknown:
        raise ValueError(f"{chunk_path(holder[unknown[0]], unknown[0])}: the evaluation has only {total} chunks")
    missing = [number for number in range(total) if number not in holder]
    if missing:
        shown = ", ".join(str(number) for number in missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ValueError(
            f"{', '.join(map(str, folders))}: {len(missing)} of {total} chunks are missing ({shown}); "
            f"finish the evaluation first"
        )
    for number in range(total):
        yield read_chunk(holder[number], number, manifest, num_inputs)


def _check_counted_once(folders: Sequence[Path], columns: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Raise ValueError when two votes are of one view of one input: a chunk that is there under two names."""
    pairs = np.stack([np.concatenate(columns[name]) for name in ("input", "view")])
    different, counts = np.unique(pairs, axis=1, return_counts=True)
    if len(counts) < pairs.shape[1]:
        number, view = different[:, counts.argmax()].tolist()
        names = ", ".join(map(str, folders))
        raise ValueError(f"{names}: input {number} has two votes of view {view}; a chunk is there twice: vote again")


class Grids:
    """Grids numbered in the order of their first vote, each text kept once."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._number_of: dict[bytes, int] = {}

    def numbers(self, votes: pa.Table) -> np.ndarray:
        """int32, one for each vote; -1: no grid."""
        written = votes.filter(votes["grid"].is_valid())
        for digest, text in zip(written["grid_hash"].to_pylist(), written["grid"].to_pylist(), strict=True):
            if digest not in self._number_of:
                self._number_of[digest] = len(self.texts)
                self.texts.append(text)
        digests = votes["grid_hash"].to_pylist()
        return np.array([-1 if digest is None else self._number_of[digest] for digest in digests], dtype=np.int32)


def _records(
    manifests: list[dict[str, Any]],
    inputs: tuple[TestInput, ...],
    votes: Mapping[str, np.ndarray],
    grids: tuple[str, ...],
) -> VoteRecords:
    probability_M = votes["halt_probability"].astype(np.float64)
    finite_M = np.isfinite(probability_M)
    manifest = _merged_manifest(manifests)
    manifest["mean_steps"] = float(votes["steps"].mean())
    manifest["non_finite_votes"] = int((~finite_M).sum())
    return VoteRecords(
        manifest=manifest,
        inputs=inputs,
        input_of_vote=votes["input"],
        view_of_vote=votes["view"],
        grid_of_vote=votes["grid"],
        halt_probability=np.where(finite_M, probability_M, 0.0),
        grids=grids,
    )


def _merged_manifest(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    if len(manifests) == 1:
        return dict(manifests[0])
    names = ", ".join(str(manifest.get("model")) for manifest in manifests)
    merged: dict[str, Any] = {
        field: value
        for field, value in manifests[0].items()
        if all(manifest.get(field) == value for manifest in manifests)
    }
    return merged | {
        "model": f"votes of {len(manifests)} evaluations added up: {names}",
        "weights_sha256": "+".join(manifest["weights_sha256"] for manifest in manifests),
        "num_views": sum(manifest["num_views"] for manifest in manifests),
        "num_items": sum(manifest["num_items"] for manifest in manifests),
        "accumulated": manifests,
    }
