"""GridProcessor: encode and decode are inverse, and errors name the cell."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling_trm.processing_trm import GridProcessor, colours_to_text, text_to_colours
from tests.conftest import PUZZLE

PROCESSORS = {
    "sudoku": GridProcessor("sudoku"),
    "sudoku 4x4": GridProcessor("sudoku", grid_shape=(4, 4)),
    "sudoku 16x16": GridProcessor("sudoku", grid_shape=(16, 16)),
    "maze": GridProcessor("maze"),
    "maze 3x5": GridProcessor("maze", grid_shape=(3, 5)),
    "grid": GridProcessor("grid", grid_shape=(2, 3), alphabet=" xyz"),
}


@pytest.mark.parametrize("name", PROCESSORS)
@given(data=st.data())
def test_decode_undoes_encode(name, data):
    processor = PROCESSORS[name]
    size = processor.seq_len
    grid = data.draw(st.text(alphabet=processor.characters, min_size=size, max_size=size))
    ids = processor.encode(grid)
    assert ids.shape == (size,)
    assert ids.dtype == torch.int64
    assert 1 <= ids.min() <= ids.max() < processor.vocab_size
    assert processor.decode(ids) == grid


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_arc_decode_undoes_encode(height, width, seed):
    grid = np.random.default_rng(seed).integers(0, 10, size=(height, width)).tolist()
    processor = GridProcessor("arc")
    assert processor.decode(processor.encode(grid)) == grid


@pytest.mark.parametrize("height", range(1, 31))
@given(width=st.integers(1, 30), place=st.tuples(st.floats(0, 1), st.floats(0, 1)), seed=st.integers(0, 2**32 - 1))
def test_arc_decode_undoes_encode_wherever_the_grid_stands(height, width, place, seed):
    grid = np.random.RandomState(seed).randint(0, 10, (height, width)).tolist()
    processor = GridProcessor("arc")
    offset = round(place[0] * (30 - height)), round(place[1] * (30 - width))
    canvas = processor.encode(grid, offset).reshape(30, 30).numpy()
    assert processor.decode(canvas.reshape(-1), offset) == grid
    # The border of the end marks, right and below as far as there is room, and padding everywhere else.
    expected = np.zeros((31, 31), dtype=np.int64)
    rows, columns = slice(offset[0], offset[0] + height), slice(offset[1], offset[1] + width)
    expected[offset[0] + height, columns] = expected[rows, offset[1] + width] = 1
    expected[rows, columns] = np.array(grid) + 2
    assert (canvas == expected[:30, :30]).all()


def test_a_grid_that_leaves_the_canvas_is_refused():
    with pytest.raises(ValueError, match=r"offset=\(29, 0\): a 2 x 1 grid does not fit there on \(30, 30\)"):
        GridProcessor("arc").encode([[1], [2]], offset=(29, 0))
    with pytest.raises(ValueError, match="offset=\\(0, 1\\) is for task='arc' only"):
        GridProcessor("sudoku").encode("." * 81, offset=(0, 1))


@pytest.mark.parametrize("grid", [[[0]], [[1, 2, 3], [4, 0, 9]]])
def test_arc_grids_as_text(grid):
    assert text_to_colours(colours_to_text(grid)).tolist() == grid


@pytest.mark.parametrize("text", ["", "01/2", "0a", "0 1", "-1", "\u0661"])
def test_what_is_no_arc_text_is_refused(text):
    with pytest.raises(ValueError, match="is no arc grid"):
        text_to_colours(text)


def test_token_ids_are_the_published_ones():
    sudoku, maze, arc = GridProcessor("sudoku"), GridProcessor("maze"), GridProcessor("arc")
    assert (sudoku.vocab_size, maze.vocab_size, arc.vocab_size) == (11, 6, 12)
    assert (sudoku.seq_len, maze.seq_len, arc.seq_len) == (81, 900, 900)
    assert (sudoku.blank_token_id, maze.blank_token_id, arc.blank_token_id) == (1, 2, None)
    assert sudoku.encode(PUZZLE)[:5].tolist() == [6, 4, 1, 1, 8]
    assert sudoku.encode(PUZZLE.replace(".", "0")).tolist() == sudoku.encode(PUZZLE).tolist()
    assert GridProcessor("maze", grid_shape=(1, 5)).encode("# SGo").tolist() == [1, 2, 3, 4, 5]
    small = GridProcessor("arc", grid_shape=(3, 4)).encode([[7, 0], [1, 9]])
    assert small.reshape(3, 4).tolist() == [[9, 2, 1, 0], [3, 11, 1, 0], [1, 1, 0, 0]]


def largest_rectangle(tokens):
    """The crop rule of TRM's ARC evaluator, transcribed."""
    best, columns = (0, 0), len(tokens[0])
    for height in range(1, len(tokens) + 1):
        for c in range(columns):
            if not 2 <= tokens[height - 1][c] <= 11:
                columns = c
                break
        if height * columns > best[0] * best[1]:
            best = (height, columns)
    return [[token - 2 for token in row[: best[1]]] for row in tokens[: best[0]]] or None


@given(st.lists(st.lists(st.sampled_from([0, 1, 2, 5, 11]), min_size=4, max_size=4), min_size=3, max_size=3))
def test_arc_crops_the_largest_rectangle(tokens):
    processor = GridProcessor("arc", grid_shape=(3, 4))
    assert processor.decode(np.array(tokens).reshape(-1)) == largest_rectangle(tokens)


def test_what_is_no_grid_decodes_to_none():
    processor = GridProcessor("sudoku")
    ids = processor.encode(PUZZLE)
    for wrong in (torch.zeros(81, dtype=torch.int64), ids.clone().fill_(11)):
        assert processor.decode(wrong) is None
    assert GridProcessor("arc").decode(np.ones(900, dtype=np.int64)) is None


@pytest.mark.parametrize(
    ("task", "grid", "message"),
    [
        ("sudoku", "53..7", r"has 5 cells, expected 81 \(9 x 9\)"),
        ("sudoku", PUZZLE[:10] + "q" + PUZZLE[11:], r"row 2, column 2: 'q' is not allowed; allowed: '\.123456789'"),
        ("sudoku", PUZZLE[:80] + "é", r"row 9, column 9: 'é' is not allowed"),
        ("maze", " " * 899 + "?", r"row 30, column 30: '\?' is not allowed; allowed: '# SGo'"),
        ("arc", [[1, 2], [3]], r"differ in length: \[2, 1\]"),
        ("arc", [[1, 10]], r"row 1, column 2: colour 10 is not allowed; allowed: 0\.\.9"),
        ("arc", [[0] * 31], r"1 x 31, at most 30 x 30"),
        ("arc", [], "non-empty list of rows"),
        ("sudoku", [1, 2], "given as a string, got list"),
    ],
)
def test_bad_grids_are_named(task, grid, message):
    with pytest.raises(ValueError, match=message):
        GridProcessor(task).encode(grid)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "sodoku"}, "task='sodoku' is unknown; allowed: sudoku, maze, arc, grid"),
        ({"task": "sudoku", "grid_shape": (6, 6)}, r"grid_shape=\(6, 6\) is no Sudoku"),
        ({"task": "maze", "grid_shape": (0, 6)}, r"grid_shape=\(0, 6\) must be"),
        ({"task": "maze", "alphabet": "ab"}, "alphabet='ab' is for task='grid' only"),
        ({"task": "grid", "alphabet": "ab"}, "needs grid_shape"),
        ({"task": "grid", "grid_shape": (2, 2)}, "needs alphabet"),
        ({"task": "grid", "grid_shape": (2, 2), "alphabet": "aba"}, r"repeats \['a'\]"),
        ({"task": "grid", "grid_shape": (2, 2), "alphabet": "aé"}, r"has \['é'\]"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        GridProcessor(**arguments)


def test_call_makes_batches():
    processor = GridProcessor("sudoku")
    assert processor(PUZZLE)["input_ids"].shape == (1, 81)
    assert processor([PUZZLE, PUZZLE])["input_ids"].dtype == torch.int64
    assert isinstance(processor([PUZZLE], return_tensors="np")["input_ids"], np.ndarray)
    arc = GridProcessor("arc")
    assert arc([[1, 2]])["input_ids"].shape == (1, 900)
    assert arc([[[1, 2]], [[3], [4]]])["input_ids"].shape == (2, 900)
    with pytest.raises(ValueError, match="grid 2: the grid has 1 cells"):
        processor([PUZZLE, "1"])
    with pytest.raises(ValueError, match="no grid was given"):
        processor([])


def test_batches_are_decoded_row_by_row_and_no_grid_is_rendered_in_words():
    processor = GridProcessor("sudoku", grid_shape=(4, 4))
    grids = ["1.3.....2...4...", "4321123443211234"]
    ids = processor(grids)["input_ids"]
    assert processor.batch_decode(ids) == processor.batch_decode(ids.tolist()) == grids
    ids[1, 0] = 0
    assert processor.batch_decode(ids) == [grids[0], None]
    assert processor.render(processor.decode(ids[1])) == "no grid"
    assert processor.render(None) == "no grid"


def test_render_can_be_read_back():
    processor = GridProcessor("sudoku")
    picture = processor.render(PUZZLE)
    assert picture.splitlines()[0] == "5 3 . | . 7 . | . . ."
    assert picture.splitlines()[3] == "------+-------+------"
    assert processor.encode(picture).tolist() == processor.encode(PUZZLE).tolist()
    assert GridProcessor("maze", grid_shape=(2, 3)).render("S #ooG") == "S #\nooG"
    assert GridProcessor("arc").render([[1, 2], [3, 4]]) == "1 2\n3 4"


@pytest.mark.parametrize("name", PROCESSORS)
def test_save_and_load_give_an_equal_processor(name, tmp_path):
    PROCESSORS[name].save_pretrained(tmp_path)
    loaded = GridProcessor.from_pretrained(tmp_path)
    assert loaded == PROCESSORS[name]
    assert hash(loaded) == hash(PROCESSORS[name])
    assert loaded != GridProcessor("maze", grid_shape=(7, 7))


@pytest.mark.parametrize("shape", [(80,), (1, 81), (9, 9), ()])
def test_ids_of_another_shape_than_a_grid_are_refused(shape):
    with pytest.raises(ValueError, match=r"token ids of shape \[.*\]; allowed: decode takes one grid, \[81\]"):
        GridProcessor("sudoku").decode(torch.ones(shape, dtype=torch.int64))
    if len(shape) == 1:
        with pytest.raises(ValueError, match=r"token ids of shape \[\]; .* batch_decode several, \[N, 81\]"):
            GridProcessor("sudoku").batch_decode(torch.ones(shape, dtype=torch.int64))


class Table:
    """As pandas': to iterate it gives the names of its columns."""

    columns = ("question",)

    def __iter__(self):
        return iter(self.columns)


@pytest.mark.parametrize("grids", [5, None, {"question": PUZZLE}, Table()], ids=["number", "none", "dict", "table"])
@pytest.mark.parametrize("task", ["sudoku", "arc"])
def test_what_is_neither_a_grid_nor_a_list_of_grids_is_refused(task, grids):
    with pytest.raises(TypeError, match=f"grids are of type {type(grids).__name__}; allowed: one grid as text"):
        GridProcessor(task)(grids)
