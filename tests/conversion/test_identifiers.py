"""identifiers.json: the reference's augmentation of a grid and ours, applied to the same grid."""

import json
from pathlib import Path

import numpy as np
import pytest

from datasets_builders.arc_tasks import ArcTask, Pair
from modeling_trm import GridProcessor
from modeling_trm.conversion.checkpoint_file import ConversionError
from modeling_trm.conversion.identifiers import UNUSED, identifiers, read_identifiers
from modeling_trm.processing_trm import crop_colours
from modeling_trm.puzzle_index_trm import PuzzleIndex
from modeling_trm.voting.views import ArcViews

# dataset/common.py of the public code, map by map.
PUBLISHED = (
    lambda g: g,
    lambda g: np.rot90(g, 1),
    lambda g: np.rot90(g, 2),
    lambda g: np.rot90(g, 3),
    np.fliplr,
    np.flipud,
    np.transpose,
    lambda g: np.fliplr(np.rot90(g, 1)),
)


def write(path: Path, names: object) -> Path:
    path.write_text(json.dumps(names), encoding="utf-8")
    return path


@pytest.mark.parametrize("number", range(8))
def test_our_evaluation_shows_the_grid_that_the_reference_trained_on(number: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(number)
    grid = rng.integers(0, 10, (3, 5)).astype(np.uint8)
    colours = np.concatenate([[0], rng.permutation(np.arange(1, 10))])
    name = f"abc|||t{number}|||{''.join(map(str, colours))}"
    index = read_identifiers(write(tmp_path / "i.json", ["<blank>", "abc", name]), 3, "evaluation")
    pair = Pair(grid, grid)
    task = ArcTask("abc", "evaluation", (pair,), (pair,))
    views = ArcViews([task], index, GridProcessor("arc"))
    ids_BL, rows_B = views.batch([(0, 0), (0, 1)])
    assert rows_B.tolist() == [1, 2]
    shown = crop_colours(ids_BL[1].reshape(30, 30))
    assert np.array_equal(shown, PUBLISHED[number](colours[grid]))
    assert views.undo(0, 1, ids_BL[1]) == views.inputs[0].question


def test_there_and_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ["<blank>", "<blank>"]
    for task in ("00d62c1b", "ConceptARC/Above1", "b"):
        names.append(task)
        for number in range(8):
            names.append(f"{task}|||t{number}|||{''.join(map(str, [0, *rng.permutation(np.arange(1, 10))]))}")
    index = read_identifiers(write(tmp_path / "i.json", names), len(names))
    assert index.tasks == (UNUSED, "00d62c1b", "ConceptARC/Above1", "b")
    assert [len(index.rows_of(task)) for task in index.tasks] == [1, 9, 9, 9]
    assert identifiers(index) == [name.replace("ConceptARC/", "") for name in names]


def test_two_subsets_with_one_id_keep_their_names(tmp_path: Path) -> None:
    names = ["<blank>", "training/a", "evaluation/a"]
    assert identifiers(read_identifiers(write(tmp_path / "i.json", names), 3)) == names


def test_rows_that_nobody_described_have_no_list() -> None:
    assert identifiers(PuzzleIndex.numbered(4)) is None
    assert identifiers(PuzzleIndex.numbered(1)) == identifiers(PuzzleIndex.blank()) == ["<blank>"]


REFUSED = {
    "no list": ({"a": 1}, "is no list of names that begins with"),
    "no blank": (["a", "b", "c"], "is no list of names that begins with"),
    "numbers": (["<blank>", 1, 2], "is no list of names"),
    "length": (["<blank>", "a"], "names 2 rows, the puzzle table has 3"),
    "map": (["<blank>", "a", "a|||t8|||0123456789"], "row 2 is 'a|||t8|||0123456789'"),
    "colours": (["<blank>", "a", "a|||t1|||0123456788"], "row 2 is 'a|||t1|||0123456788'"),
    "no name": (["<blank>", "", "a"], "row 1 is ''"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path) -> None:
    names, message = REFUSED[case]
    with pytest.raises(ConversionError) as raised:
        read_identifiers(write(tmp_path / "i.json", names), 3)
    assert message in str(raised.value)
    assert "i.json" in str(raised.value)


def test_broken_json(tmp_path: Path) -> None:
    (tmp_path / "i.json").write_text("[", encoding="utf-8")
    with pytest.raises(ConversionError, match=r"i\.json: is no JSON, or cut short"):
        read_identifiers(tmp_path / "i.json", 3)
