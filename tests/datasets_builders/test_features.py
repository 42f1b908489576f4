"""load_puzzles: every kind of source, subsets and fingerprints, bad rows, and what each unusable data set is told."""

import csv
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets_builders import features, sources
from datasets_builders.features import PuzzleSet, load_puzzles, load_training_puzzles
from datasets_builders.validation import DataError

QUESTION = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
ANSWER = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
COLUMNS = ("source", "question", "answer", "rating")
GOOD = ("mine", QUESTION, ANSWER, 3)


def write_csv(path, rows, columns=COLUMNS):
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return path


def write_parquet(path, rows, columns=COLUMNS):
    pq.write_table(pa.table(dict(zip(columns, zip(*rows, strict=True), strict=True))), path)
    return path


@pytest.mark.parametrize(("task", "counts"), [("sudoku", (25500, 1500, 3000)), ("maze", (900, 100, 1000))])
def test_the_sample_is_valid_and_apart(task, counts):
    loaded = [load_puzzles(task, split, validate="all") for split in ("train", "validation", "test")]
    assert tuple(map(len, loaded)) == counts
    questions = [set(map(bytes, puzzles.inputs)) for puzzles in loaded]
    assert sum(map(len, questions)) == sum(counts) == len(set.union(*questions))
    assert all(source.startswith("gen_") for puzzles in loaded for source in np.unique(puzzles.sources))
    files = [file for file in sources.SAMPLES.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 2_700_000


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_files_give_the_same_puzzles_as_the_sample(tmp_path, write):
    sample = load_puzzles("sudoku", "test")
    table = sample.to_table().to_pydict()
    path = write(tmp_path / f"puzzles_test.{write.__name__[6:]}", list(zip(*table.values(), strict=True)))
    for source in ({"data_files": path}, {"data_dir": tmp_path}, {"data_files": {"test": [str(path)]}}):
        loaded = load_puzzles("sudoku", "test", **source)
        assert loaded.fingerprint == sample.fingerprint
        np.testing.assert_array_equal(loaded.ratings, sample.ratings)
    part = load_puzzles("sudoku", "train", data_files={"train": str(tmp_path / "*_test.*")}, subset=10)
    assert len(part) == 10


def test_subsets_are_seeded_nested_and_checked():
    thousand = load_puzzles("sudoku", "train", subset=1000)
    assert thousand.fingerprint == "4bae12b18a903f24e35bf89ce3473004fa991717e50256d16b6114edd4716349"
    hundred = load_puzzles("sudoku", "train", subset=100)
    assert set(map(bytes, hundred.inputs)) < set(map(bytes, thousand.inputs))
    assert load_puzzles("sudoku", "train", subset=100, seed=1).fingerprint != hundred.fingerprint
    load_puzzles("sudoku", "train", subset=100, expected_fingerprint=hundred.fingerprint)
    with pytest.raises(DataError, match=f"fingerprint {hundred.fingerprint}, expected 0123"):
        load_puzzles("sudoku", "train", subset=100, expected_fingerprint="0123")
    for size in (0, 25501):
        with pytest.raises(DataError, match=f"subset={size} is not between 1 and the 25500 puzzles"):
            load_puzzles("sudoku", "train", subset=size)


def test_the_fingerprint_sees_every_column_and_the_order():
    puzzles = load_puzzles("sudoku", "validation")
    everything = np.arange(len(puzzles))
    assert puzzles.select(everything).fingerprint == puzzles.fingerprint
    seen = {puzzles.fingerprint, puzzles.select(everything[::-1]).fingerprint}
    for column, value in (("inputs", 0), ("labels", 0), ("sources", "other"), ("ratings", 999)):
        copy = puzzles.select(everything)
        getattr(copy, column)[0] = value
        seen.add(copy.fingerprint)
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("x", QUESTION[:-1], ANSWER, 0), r"the question: has 80 cells, expected 81 \(9 x 9\)"),
        (("x", QUESTION.replace("6", "a", 1), ANSWER, 0), "the question: row 2, column 1: 'a' is not allowed"),
        (("x", QUESTION, ANSWER.replace("1", "ü", 1), 0), "the answer: row 1, column 8: 'ü' is not allowed"),
        (("x", "9" + QUESTION[1:], ANSWER, 0), "the answer has '5' where the question has '9'"),
        (("x", "." * 81, "1" * 81, 0), "the answer breaks the rules: row 1"),
        (("x", QUESTION, "", 0), "the answer: has 0 cells"),
    ],
)
@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_bad_rows_are_named_or_skipped(tmp_path, write, row, reason):
    path = write(tmp_path / f"train.{write.__name__[6:]}", [GOOD, row, GOOD])
    with pytest.raises(DataError, match=f"1 of 3 rows are bad; .*\n.*{path.name}, row 2: {reason}"):
        load_puzzles("sudoku", "train", data_files=path)
    puzzles = load_puzzles("sudoku", "train", data_files=path, on_bad_row="skip")
    assert len(puzzles) == 2
    assert [(bad.file, bad.row) for bad in puzzles.bad_rows] == [(str(path), 2)]
    path = write(tmp_path / f"test.{write.__name__[6:]}", [row])
    with pytest.raises(DataError, match="1 of 1 rows are bad"):
        load_puzzles("sudoku", "test", data_files=path, on_bad_row="skip", grid_shape=(9, 9))


def test_rows_are_counted_by_file(tmp_path):
    first = write_csv(tmp_path / "train-00000-of-00002.csv", [GOOD] * 3)
    second = write_csv(tmp_path / "train-00001-of-00002.csv", [GOOD, ("x", "", "", 0)])
    with pytest.raises(DataError, match=f"{second.name}, row 2: the question: has 0 cells"):
        load_puzzles("sudoku", "train", data_dir=tmp_path)
    assert load_puzzles("sudoku", "train", data_files=first).bad_rows == ()


def test_maze_paths_are_checked_on_a_sample_or_all(tmp_path, monkeypatch):
    sample = load_puzzles("maze", "train", subset=300)
    rows = [list(row.values()) for row in sample.to_table().to_pylist()]
    rows[299][2] = rows[299][1]
    path = write_parquet(tmp_path / "train.parquet", rows)
    with pytest.raises(DataError, match="row 300: the 0 path cells of the answer are no shortest path"):
        load_puzzles("maze", "train", data_files=path, validate="all")
    puzzles = load_puzzles("maze", "train", data_files=path, validate="all", on_bad_row="skip")
    assert len(puzzles) == 299
    monkeypatch.setattr(features, "PATHS_CHECKED", 100)
    skipped = [
        len(load_puzzles("maze", "train", data_files=path, seed=seed, on_bad_row="skip").bad_rows) for seed in range(8)
    ]
    assert set(skipped) == {0, 1}  # a third of the seeds looks at the row


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: write_csv(path / "train.csv", []), "train.csv: the data set is empty"),
        (lambda path: (path / "train.csv").write_text(""), "train.csv: is empty"),
        (
            lambda path: write_csv(path / "train.csv", [("a", "b")], ("first", "answer")),
            "no column that is known as the question",
        ),
        (
            lambda path: write_csv(path / "train.csv", [GOOD, ("m", QUESTION, ANSWER, "hard")]),
            "column rating must hold numbers, row 2: 'hard' is no number",
        ),
        (lambda path: (path / "train.csv").write_text("question,answer\n1,2\n3\n"), "cannot be read as csv: .*Row #3"),
        (lambda path: (path / "train.parquet").write_bytes(b"PAR1 cut off"), "train.parquet: cannot be read as"),
        (lambda path: (path / "puzzles.csv").write_text("x"), r"no sudoku file named for a split .*puzzles\.csv"),
        (lambda path: None, "no sudoku file named for a split .*nothing"),
    ],
)
def test_unusable_folders_are_told_why(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        load_puzzles("sudoku", "train", data_dir=tmp_path)


def test_unusable_arguments_are_told_why(tmp_path):
    path = write_csv(tmp_path / "train.csv", [GOOD])
    write_csv(tmp_path / "more_train.csv", [GOOD])
    (tmp_path / "other.txt").write_text("x\n")
    for arguments, message in [
        ({"data_dir": tmp_path / "none"}, "none: is not a folder"),
        ({"data_dir": tmp_path}, r"several files could be train: more_train.csv, train.csv; name yours"),
        ({"data_files": tmp_path / "none.csv"}, "none.csv: no such file"),
        (
            {"data_files": tmp_path / "other.txt"},
            r"other.txt: has no column .* the question \(question, input, .*\); it has 'x'; name",
        ),
        ({"data_files": {"trian": path}}, r"names the splits \['trian'\]; allowed: train, validation, test"),
        ({"data_files": path, "data_dir": tmp_path}, "data_dir and data_files are given; name one"),
        (
            {"data_files": path, "split": "test"},
            "no file for split 'test', only for train; to use one all the same",
        ),
        ({"split": "dev"}, "split='dev' is unknown; allowed: train, validation, test"),
        ({"task": "arc"}, "task='arc' is not allowed here; allowed: sudoku, maze, grid; .* asked by trm vote"),
        ({"task": "sodoku"}, "task='sodoku' is unknown; allowed: sudoku, maze, grid"),
        ({"on_bad_row": "drop"}, "on_bad_row='drop' is unknown"),
        ({"validate": "none"}, "validate='none' is unknown"),
        ({"task": "grid"}, "no sample of task 'grid' is shipped"),
        (
            {"task": "grid", "dataset": "hub", "grid_shape": (2, 2), "alphabet": "ab"},
            "dataset='hub' knows sudoku, maze",
        ),
        ({"dataset": "hub", "split": "validation"}, "sapientinc/sudoku-extreme: has no split 'validation'"),
        ({"dataset": "hub"}, "sudoku-extreme/train.csv at revision 58942f96.* could not be fetched .* shipped sample"),
        ({"dataset": "org/name"}, "dataset org/name: could not be loaded"),
    ]:
        with pytest.raises(DataError, match=message):
            load_puzzles(**{"task": "sudoku", "split": "train", **arguments})


def test_a_damaged_sample_is_named(tmp_path, monkeypatch):
    for file in ("SHA256SUMS", "maze/test.parquet"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes((sources.SAMPLES / file).read_bytes())
    monkeypatch.setattr(sources, "SAMPLES", tmp_path)
    load_puzzles("maze", "test")
    (tmp_path / "maze/test.parquet").write_bytes((tmp_path / "maze/test.parquet").read_bytes()[:-100])
    for split in ("test", "train"):  # cut short; missing
        with pytest.raises(DataError, match=rf"{split}\.parquet: the shipped sample is damaged or altered"):
            load_puzzles("maze", split)


def test_the_hub_file_is_used_once_it_is_there(tmp_path, monkeypatch):
    path = write_csv(tmp_path / "train.csv", [GOOD])
    asked = []

    def download(repo_id, name, *, repo_type, revision):
        asked.append((repo_id, name, repo_type, revision))
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(DataError, match=r"train\.csv: is not the pinned file"):
        load_puzzles("sudoku", "train", dataset="hub")
    pin = sources.PINS["sudoku"]
    files = {"train": ("train.csv", sources.file_sha256(path))}
    monkeypatch.setitem(sources.PINS, "sudoku", sources.Pin(pin.repo_id, pin.revision, files))
    assert load_puzzles("sudoku", "train", dataset="hub").origin.startswith("sapientinc/sudoku-extreme, revision 5894")
    assert asked[0] == ("sapientinc/sudoku-extreme", "train.csv", "dataset", "58942f96baeb572ca3127e2a9e9c70f330783d6b")


def test_a_users_own_data_set_in_memory():
    grid = [list(map(int, QUESTION.replace(".", "0")[row * 9 : row * 9 + 9])) for row in range(9)]
    mine = datasets.Dataset.from_dict({"input": [grid], "label": [ANSWER], "task_id": ["a"]})
    puzzles = load_puzzles("sudoku", "train", dataset=mine)
    assert puzzles.processor.decode(puzzles.inputs[0]) == QUESTION
    assert puzzles.ratings.tolist() == [0]
    assert len(load_puzzles("sudoku", "test", dataset=datasets.DatasetDict(test=mine))) == 1
    one = load_puzzles("sudoku", "test", dataset=mine)  # has no splits: it is what is asked for
    assert len(one) == 1 and one.origin == "dataset in memory, split test"
    with pytest.raises(DataError, match="has no split 'test'; it has train"):
        load_puzzles("sudoku", "test", dataset=datasets.DatasetDict(train=mine))
    with pytest.raises(DataError, match="is a IterableDataset"):
        load_puzzles("sudoku", "train", dataset=mine.to_iterable_dataset())


def test_a_transform_is_not_left_out_silently():
    """It would act on every row that is read; with_format says only as what the rows come."""
    mine = datasets.Dataset.from_dict({"question": [QUESTION], "answer": [ANSWER]})
    with pytest.raises(DataError, match=r"dataset in memory, split train: has a transform .*\.map\(FUNCTION\)"):
        load_puzzles("sudoku", "train", dataset=mine.with_transform(lambda rows: rows))
    for form in ("numpy", "torch", "arrow", None):
        assert len(load_puzzles("sudoku", "train", dataset=mine.with_format(form))) == 1


@pytest.mark.parametrize("as_file", [False, True])
def test_sources_that_are_classes_have_their_names(tmp_path, as_file):
    rows = {"question": [QUESTION] * 4, "answer": [ANSWER] * 4, "source": [1, 0, -1, None]}
    mine = datasets.Dataset.from_dict(rows).cast_column("source", datasets.ClassLabel(names=["easy", "hard"]))
    if as_file:
        mine.to_parquet(str(tmp_path / "mine.parquet"))
    where = {"data_files": tmp_path / "mine.parquet"} if as_file else {"dataset": mine}
    assert load_puzzles("sudoku", "train", **where).sources.tolist() == ["hard", "easy", "", ""]


def test_other_sizes_and_alphabets(tmp_path):
    small = write_csv(
        tmp_path / "small_train.csv", [("1...\n....\n....\n...1", "1234341221434321")], ("input", "label")
    )
    puzzles = load_puzzles("sudoku", "train", data_files=small)
    assert puzzles.processor.grid_shape == [4, 4]
    assert puzzles.sources.tolist() == ["small_train"]
    maze = write_csv(tmp_path / "maze.csv", [("S  \n# G", "Soo\n# G")], ("input", "label"))
    assert load_puzzles("maze", "test", data_files=maze).processor.grid_shape == [2, 3]
    own = write_csv(tmp_path / "own.csv", [("ab.", "abb"), ("a?.", "aaa")], ("input", "label"))
    arguments = {"data_files": own, "grid_shape": (1, 3), "alphabet": ".ab"}
    puzzles = load_puzzles("grid", "test", on_bad_row="skip", **arguments)
    assert puzzles.labels.tolist() == [[2, 3, 3]]
    assert puzzles.to_table()["question"].to_pylist() == ["ab."]
    with pytest.raises(DataError, match=r"own.csv, row 2: the question: row 1, column 2: '\?' is not allowed"):
        load_puzzles("grid", "test", **arguments)


def write_sudoku(path: Path, split: str, count: int) -> None:
    """The first puzzles of the shipped split as a parquet file of their own."""
    pq.write_table(load_puzzles("sudoku", split).select(np.arange(count)).to_table(), path)


def rows_of(puzzles: PuzzleSet) -> set[bytes]:
    return {row.tobytes() for row in puzzles.inputs}


def test_training_and_validation_come_from_their_own_splits_where_there_are_both() -> None:
    training, validation = load_training_puzzles("sudoku", validation_puzzles=100, seed=3)
    assert rows_of(training) == rows_of(load_puzzles("sudoku", "train"))
    assert rows_of(validation) < rows_of(load_puzzles("sudoku", "validation")) and len(validation) == 100


@pytest.mark.parametrize("subset", [None, 120])
def test_validation_is_held_out_of_training_where_there_is_none(tmp_path: Path, subset: int | None) -> None:
    write_sudoku(tmp_path / "sudoku_train.parquet", "train", 200)
    write_sudoku(tmp_path / "sudoku_test.parquet", "test", 50)
    training, validation = load_training_puzzles("sudoku", subset=subset, validation_puzzles=40, data_dir=tmp_path)
    everything = rows_of(load_puzzles("sudoku", "train", data_dir=tmp_path))
    assert len(validation) == 40 and len(training) == (subset or 160)
    assert not rows_of(training) & rows_of(validation)
    assert rows_of(training) | rows_of(validation) <= everything
    if subset is not None:  # the published subset does not depend on how much is held out
        assert training.fingerprint == load_puzzles("sudoku", "train", data_dir=tmp_path, subset=subset).fingerprint


def test_too_few_rows_for_training_and_validation_is_an_error(tmp_path: Path) -> None:
    write_sudoku(tmp_path / "sudoku_train.parquet", "train", 30)
    with pytest.raises(DataError, match="no validation split, and its 30 training puzzles"):
        load_training_puzzles("sudoku", subset=25, validation_puzzles=6, data_dir=tmp_path)
