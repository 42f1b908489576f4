"""How an evaluation by voting lies on disk: small chunks of votes that a killed run leaves whole, and that merge.

    FOLDER/inputs.parquet            the test inputs, one row each: task_id, pair, question, reference
    FOLDER/manifest.json             what was evaluated and how; written before the first chunk
    FOLDER/chunks/chunk-000012.parquet   the votes of work items 12 * chunk_size and on, one row a vote

A vote (TRM, arXiv 2510.04871, public evaluator) is what the model answered to one view of one test input. Columns of a
chunk: input and view (numbers), grid_hash (128-bit blake2b of the grid's text, null where the answer was no grid),
halt_probability, steps, and grid: the text itself at the first vote of the chunk for that grid, else null.
Every file is written under a temporary name and then renamed: a file that exists is whole.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..utils.files import write_bytes, write_json
from ..utils.reading import read_json

FORMAT = 1
HASH_BYTES = 16
# Two folders belong to one evaluation when their manifests agree in these; the other fields tell where and when.
IDENTITY = (
    "format",
    "task",
    "protocol",
    "data_fingerprint",
    "max_steps",
    "halt",
    "precision",
    "num_views",
    "views_fingerprint",
    "weights_sha256",
    "num_items",
    "chunk_size",
)
COUNTS = ("num_views", "num_items", "chunk_size", "max_steps")
CHECKSUM = "identity_sha256"
NOT_ATTEMPTED = "not_attempted"  # {bare id: number of tests} of tasks that were given but not asked
NUMBER = b"chunk"  # in a chunk's metadata: which it is, whatever it is called
VOTE_SCHEMA = pa.schema(
    [
        ("input", pa.int32()),
        ("view", pa.int32()),
        ("grid_hash", pa.binary(HASH_BYTES)),
        ("halt_probability", pa.float32()),
        ("steps", pa.int32()),
        ("grid", pa.string()),
    ]
)
INPUT_SCHEMA = pa.schema(
    [("task_id", pa.string()), ("pair", pa.int32()), ("question", pa.string()), ("reference", pa.string())]
)


@dataclass(frozen=True)
class TestInput:
    """A grid to be answered: test pair `pair` (from 0) of its task, as grid texts; reference None: answer unknown."""

    __test__ = False  # pytest takes every class named Test... for a test

    task_id: str
    pair: int
    question: str
    reference: str | None


class Vote(NamedTuple):
    """One answer: to which view of which input, its grid text ("" = no grid), halt probability, steps taken."""

    input: int
    view: int
    grid: str
    halt_probability: float
    steps: int


def grid_hash(text: str) -> bytes:
    """128 bits that stand for a grid's text."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=HASH_BYTES).digest()


def fingerprint_inputs(inputs: Iterable[TestInput]) -> str:
    """SHA-256 over the test inputs in their order, known answers included."""
    digest = hashlib.sha256()
    for item in inputs:
        digest.update(json.dumps([item.task_id, item.pair, item.question, item.reference]).encode())
    return digest.hexdigest()


def begin_folder(folder: Path, manifest: Mapping[str, Any], inputs: Sequence[TestInput]) -> None:
    """Make the folder ready for chunks, or check that it was begun by the same evaluation.

    Raises:
        ValueError: naming the first field in which the folder's manifest differs, and both values.
    """
    if (folder / "manifest.json").is_file():
        found = read_manifest(folder)
        field = differing_field(found, manifest)
        if field is not None:
            raise ValueError(
                f"{folder}: was begun by another evaluation: its {field} is {found.get(field)!r}, "
                f"this one's {manifest.get(field)!r}; choose another folder, or remove this one"
            )
        return
    table = pa.Table.from_pylist([vars(item) for item in inputs], schema=INPUT_SCHEMA)
    _write_table(folder / "inputs.parquet", table)  # before the manifest: a folder with a manifest has its inputs
    write_json(folder / "manifest.json", {**manifest, CHECKSUM: checksum(manifest)})


def checksum(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over the fields that say what the votes are of."""
    return hashlib.sha256(json.dumps([manifest[field] for field in IDENTITY]).encode()).hexdigest()


def differing_field(one: Mapping[str, Any], other: Mapping[str, Any], fields: Sequence[str] = IDENTITY) -> str | None:
    """The first of the fields in which two manifests differ, None where they agree."""
    return next((field for field in fields if one.get(field) != other.get(field)), None)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises ValueError naming the file when there is none, it is no JSON or lacks a field."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; the folder holds no evaluation by voting")
    manifest = read_json(path)
    missing = [field for field in IDENTITY if field not in manifest]
    if missing:
        raise ValueError(f"{path}: has no field {missing[0]!r}")
    for field in COUNTS:
        if type(manifest[field]) is not int or manifest[field] < 1:
            raise ValueError(f"{path}: {field} is {manifest[field]!r}; allowed: whole numbers from 1")
    if manifest.get(CHECKSUM, checksum(manifest)) != checksum(manifest):
        raise ValueError(f"{path}: was changed after it was written: its fields do not fit its {CHECKSUM}")
    if manifest["format"] != FORMAT:
        raise ValueError(f"{path}: format is {manifest['format']!r}; this version reads format {FORMAT}")
    return manifest


def read_inputs(folder: Path, manifest: Mapping[str, Any]) -> tuple[TestInput, ...]:
    """The test inputs, checked against the manifest's data_fingerprint."""
    path = folder / "inputs.parquet"
    inputs = tuple(TestInput(**row) for row in _read_table(path, INPUT_SCHEMA).to_pylist())
    if fingerprint_inputs(inputs) != manifest["data_fingerprint"]:
        raise ValueError(f"{path}: is not the file that manifest.json describes (data_fingerprint differs)")
    return inputs


def num_chunks(manifest: Mapping[str, Any]) -> int:
    return -(-manifest["num_items"] // manifest["chunk_size"])


def chunk_items(manifest: Mapping[str, Any], number: int) -> range:
    """The work items of a chunk."""
    size = manifest["chunk_size"]
    return range(number * size, min((number + 1) * size, manifest["num_items"]))


def chunks_done(folder: Path) -> set[int]:
    """Numbers of the chunks that the folder holds."""
    found = (re.fullmatch(r"chunk-(\d{6,})\.parquet", path.name) for path in (folder / "chunks").glob("*"))
    return {int(match[1]) for match in found if match}


def chunk_path(folder: Path, number: int) -> Path:
    return folder / "chunks" / f"chunk-{number:06d}.parquet"


def write_chunk(folder: Path, number: int, votes: Sequence[Vote]) -> Path:
    hashes = [grid_hash(vote.grid) if vote.grid else None for vote in votes]
    seen: set[bytes | None] = {None}
    texts = []
    for vote, digest in zip(votes, hashes, strict=True):
        texts.append(None if digest in seen else vote.grid)
        seen.add(digest)
    columns = {
        "input": [vote.input for vote in votes],
        "view": [vote.view for vote in votes],
        "grid_hash": hashes,
        "halt_probability": [vote.halt_probability for vote in votes],
        "steps": [vote.steps for vote in votes],
        "grid": texts,
    }
    table = pa.table(columns, schema=VOTE_SCHEMA).replace_schema_metadata({NUMBER: str(number)})
    return _write_table(chunk_path(folder, number), table)


def read_chunk(folder: Path, number: int, manifest: Mapping[str, Any], num_inputs: int) -> pa.Table:
    """The votes of a chunk. Raises ValueError naming the file when it is unreadable or not what it should be."""
    path = chunk_path(folder, number)
    hint = "remove it and evaluate again: only its items are run"
    table = _read_table(path, VOTE_SCHEMA, hint)
    expected = len(chunk_items(manifest, number))
    if table.num_rows != expected:
        raise ValueError(f"{path}: holds {table.num_rows} votes, expected {expected}; {hint}")
    named = (table.schema.metadata or {}).get(NUMBER, str(number).encode())  # those of earlier versions have none
    if named != str(number).encode():
        raise ValueError(f"{path}: is chunk {named.decode()} under another name, and would count twice; {hint}")
    bounds = {"input": (0, num_inputs - 1), "view": (0, manifest["num_views"] - 1), "steps": (1, manifest["max_steps"])}
    for name, (least, most) in (bounds | {"halt_probability": (0, 1)}).items():
        values = table[name].to_numpy()  # of whole numbers with a null among them, NaN
        wrong = table[name].null_count or (np.isfinite(values) & ((values < least) | (values > most))).any()
        if wrong:
            raise ValueError(f"{path}: {name} is empty or out of range; allowed: {least} to {most}; {hint}")
    written = table.filter(table["grid"].is_valid())
    hashes = written["grid_hash"].to_pylist()
    complete = set(table["grid_hash"].to_pylist()) <= {None, *hashes}
    if not complete or [grid_hash(text) for text in written["grid"].to_pylist()] != hashes:
        raise ValueError(f"{path}: its grids do not match their hashes; {hint}")
    return table


def _write_table(path: Path, table: pa.Table) -> Path:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return write_bytes(path, sink.getvalue().to_pybytes())


def _read_table(path: Path, schema: pa.Schema, hint: str = "is the folder complete?") -> pa.Table:
    try:
        table = pq.ParquetFile(pa.BufferReader(path.read_bytes()), page_checksum_verification=True).read()
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read ({' '.join(str(error).split())}); {hint}") from error
    if not table.schema.equals(schema):
        raise ValueError(f"{path}: has columns {table.schema.names}, expected {schema.names}; {hint}")
    return table
