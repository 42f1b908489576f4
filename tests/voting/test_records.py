"""Votes on disk and in memory: round trip, merging, and what a folder that is damaged or of another evaluation gets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from modeling_trm.voting.folder import (
    FORMAT,
    Vote,
    begin_folder,
    chunk_path,
    fingerprint_inputs,
    grid_hash,
    write_chunk,
)
from modeling_trm.voting.records import TestInput, VoteRecords, load_records

INPUTS = (
    TestInput("evaluation/aa", 0, "012/340", "1"),
    TestInput("evaluation/aa", 1, "5", "22/22"),
    TestInput("evaluation/bb", 0, "7", None),
)
CHUNK, VIEWS = 5, 4
GRIDS = ["1", "", "22/22", "1", "3/4"]


def manifest(**changes) -> dict:
    return {
        "format": FORMAT,
        "precision": "float32",
        "task": "arc",
        "protocol": "transductive",
        "data_fingerprint": fingerprint_inputs(INPUTS),
        "views_fingerprint": "v",
        "weights_sha256": "w",
        "max_steps": 16,
        "halt": False,
        "num_views": VIEWS,
        "num_items": VIEWS * len(INPUTS),
        "chunk_size": CHUNK,
        "model": "m",
    } | changes


def all_votes() -> list[Vote]:
    random = np.random.RandomState(0)
    return [
        Vote(item % 3, item // 3, GRIDS[random.randint(len(GRIDS))], float(np.float32(random.rand())), 1 + item % 16)
        for item in range(VIEWS * len(INPUTS))
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """folder(name, chunks, **manifest changes): a folder with these chunks of `all_votes`."""

    def make(name: str, chunks=(0, 1, 2), **changes) -> Path:
        path = tmp_path / name
        begin_folder(path, manifest(**changes), INPUTS)
        for number in chunks:
            write_chunk(path, number, all_votes()[number * CHUNK : (number + 1) * CHUNK])
        return path

    return make


def as_votes(records: VoteRecords) -> list[tuple]:
    grids = ["" if number < 0 else records.grids[number] for number in records.grid_of_vote]
    return list(zip(records.input_of_vote.tolist(), records.view_of_vote.tolist(), grids, records.halt_probability))


def test_round_trip(folder) -> None:
    records = load_records(folder("a"))
    assert records.inputs == INPUTS
    assert as_votes(records) == [vote[:4] for vote in all_votes()]
    assert len(set(records.grids)) == len(records.grids)
    assert "" not in records.grids
    dtypes = [records.input_of_vote, records.view_of_vote, records.grid_of_vote, records.halt_probability]
    assert [array.dtype for array in dtypes] == [np.int32, np.int32, np.int32, np.float64]
    for number in range(len(INPUTS)):
        mine = [vote for vote in all_votes() if vote.input == number]
        assert records.of_input(number) == ([v.grid for v in mine], [v.halt_probability for v in mine])
    assert records.manifest["mean_steps"] == pytest.approx(np.mean([vote.steps for vote in all_votes()]))
    assert records.manifest["non_finite_votes"] == 0


def test_a_chunk_holds_each_text_once_and_128_bit_hashes(folder) -> None:
    table = pq.read_table(chunk_path(folder("a"), 0))
    texts = [text for text in table["grid"].to_pylist() if text is not None]
    assert sorted(texts) == sorted({vote.grid for vote in all_votes()[:CHUNK]} - {""})
    assert table["grid_hash"].to_pylist() == [grid_hash(v.grid) if v.grid else None for v in all_votes()[:CHUNK]]
    assert len(grid_hash("1")) == 16


def test_shards_merge_in_any_order_and_duplicates_count_once(folder) -> None:
    whole, one, two = folder("whole"), folder("one", chunks=(0, 2)), folder("two", chunks=(1, 2), model="elsewhere")
    expected = load_records(whole)
    for folders in ([one, two], [two, one], [whole, one, two], [whole, whole]):
        merged = load_records(*folders)
        assert as_votes(merged) == as_votes(expected)
        assert merged.grids == expected.grids


@pytest.mark.parametrize(
    ("field", "value"),
    [("weights_sha256", "x"), ("max_steps", 8), ("num_views", 9), ("protocol", "inductive"), ("task", "maze")],
)
def test_folders_of_other_evaluations_are_refused(folder, field: str, value) -> None:
    one, other = folder("one"), folder("other", **{field: value})
    with pytest.raises(
        ValueError, match=rf"{field} is .*{manifest()[field]}.* in the first, .*{value}.* in the second"
    ):
        load_records(one, other)
    if field in ("protocol", "task"):
        with pytest.raises(ValueError, match=f"{field} is"):
            load_records(one, other, accumulate=True)


def test_checkpoints_add_up_only_when_asked_and_are_named(folder) -> None:
    merged = load_records(folder("one"), folder("other", weights_sha256="x", model="n"), accumulate=True)
    assert len(merged) == 2 * len(all_votes())
    assert merged.manifest["model"] == "votes of 2 evaluations added up: m, n"
    assert merged.manifest["num_views"] == 2 * VIEWS
    assert [part["weights_sha256"] for part in merged.manifest["accumulated"]] == ["w", "x"]
    assert len(set(zip(merged.input_of_vote.tolist(), merged.view_of_vote.tolist()))) == len(merged)
    alone = load_records(folder("one"), accumulate=True)
    assert "accumulated" not in alone.manifest


def test_missing_and_damaged_chunks_are_named(folder) -> None:
    with pytest.raises(ValueError, match=r"1 of 3 chunks are missing \(1\)"):
        load_records(folder("gap", chunks=(0, 2)))
    path = chunk_path(folder("cut"), 1)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"chunk-000001\.parquet: cannot be read"):
        load_records(path.parents[1])
    write_chunk(path.parents[1], 1, all_votes()[:2])
    with pytest.raises(ValueError, match=r"chunk-000001\.parquet: holds 2 votes, expected 5"):
        load_records(path.parents[1])
    write_chunk(path.parents[1], 1, all_votes()[5:10])
    write_chunk(path.parents[1], 7, all_votes()[5:10])
    with pytest.raises(ValueError, match=r"chunk-000007\.parquet: the evaluation has only 3 chunks"):
        load_records(path.parents[1])


def test_a_text_that_does_not_match_its_hash_is_named(folder) -> None:
    path = chunk_path(folder("a"), 0)
    table = pq.read_table(path)
    texts = ["9" if text == "1" else text for text in table["grid"].to_pylist()]
    assert "9" in texts
    place = table.schema.get_field_index("grid")
    pq.write_table(table.set_column(place, table.schema.field("grid"), [texts]), path)
    with pytest.raises(ValueError, match=r"chunk-000000\.parquet: its grids do not match their hashes"):
        load_records(path.parents[1])


def test_nan_counts_as_probability_zero_and_is_counted(folder) -> None:
    path = folder("a")
    votes = all_votes()[:CHUNK]
    write_chunk(path, 0, [votes[0]._replace(halt_probability=float("nan")), *votes[1:]])
    records = load_records(path)
    assert records.halt_probability[0] == 0.0
    assert records.manifest["non_finite_votes"] == 1


def test_a_folder_is_continued_by_its_own_evaluation_alone(folder) -> None:
    path = folder("a", chunks=(0,))
    begin_folder(path, manifest(model="the same weights under another name"), INPUTS)
    with pytest.raises(ValueError, match="its weights_sha256 is 'w', this one's 'x'"):
        begin_folder(path, manifest(weights_sha256="x"), INPUTS)


def test_what_is_no_folder_of_votes_is_named(folder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder"):
        load_records()
    with pytest.raises(ValueError, match=r"nothing/manifest\.json: no such file"):
        load_records(tmp_path / "nothing")
    path = folder("a")
    (path / "inputs.parquet").write_bytes((folder("b") / "inputs.parquet").read_bytes()[:30])
    with pytest.raises(ValueError, match=r"inputs\.parquet: cannot be read"):
        load_records(path)
    (path / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"manifest\.json: is no JSON"):
        load_records(path)
    (path / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="has no field 'format'"):
        load_records(path)
