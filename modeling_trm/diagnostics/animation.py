"""A grid being solved, as a GIF: given cells dark, answers coloured by how sure the model is of them.

A Sudoku's blank cells and a maze's open ones are free; a free cell that the answer leaves as it was is pale. A cell
that the step changed has a dark frame; under the grid stands what the step did.

Shapes: T supervision steps, L cells.
"""

import io
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from ..evaluation.puzzles import PAD_TOKEN_ID, Puzzles
from ..processing_trm import GridProcessor
from ..utils.files import write_bytes
from .observation import STEP, Observation

MILLISECONDS, LAST_MILLISECONDS = 700, 3000
GIVEN, UNTOUCHED, INK, PAPER = "#3a3f47", "#f1f1ee", "#111111", "#ffffff"
SURE = LinearSegmentedColormap.from_list("sure", ["#D55E00", "#F6E3B4", "#56B4E9"])  # colour-blind readers see it too
MAX_WRITTEN = 16  # cells a side up to which every cell has its character written in it


def choose_puzzle(observation: Observation) -> int:
    """The solved puzzle that took the most steps to its last change; without a solved one, the first."""
    steps = observation.level(STEP)
    changed_BT = np.stack([moment.values["cells_changed"].numpy() for moment in steps], axis=1) > 0
    last_B = np.where(changed_BT.any(1), changed_BT.shape[1] - changed_BT[:, ::-1].argmax(1), 0)
    solved_B = steps[-1].values["exact"].numpy() == 1 if "exact" in steps[-1].values else np.zeros(len(last_B), bool)
    return int(np.where(solved_B, last_B, -1).argmax()) if solved_B.any() else 0


def solving_gif(observation: Observation, puzzles: Puzzles, number: int, output: str | Path) -> Path:
    """Write the GIF of puzzle `number` of both: the puzzle, then the answer after every step."""
    puzzle_L, label_L = puzzles.inputs[number].astype(int), puzzles.labels[number].astype(int)
    answers_TL = observation.answers[:, number].numpy()
    sure_TL = observation.confidence[:, number].numpy()
    halts = [float(moment.values["halt_probability"][number]) for moment in observation.level(STEP)]
    images = [_frame(puzzles.processor, puzzle_L, puzzle_L, puzzle_L, np.ones(len(puzzle_L)), "the puzzle")]
    last_L = puzzle_L
    for step, (answer_L, sure_L, halt) in enumerate(zip(answers_TL, sure_TL, halts), start=1):
        wrong = int(((answer_L != label_L) & (label_L != PAD_TOKEN_ID)).sum())
        text = (
            f"step {step} of {len(halts)}: {int((answer_L != last_L).sum())} cells changed\n"
            f"{wrong} cells wrong, halt probability {halt:.2f}"
        )
        images.append(_frame(puzzles.processor, puzzle_L, answer_L, last_L, sure_L, text))
        last_L = answer_L
    durations = [MILLISECONDS] * (len(images) - 1) + [LAST_MILLISECONDS]
    buffer = io.BytesIO()
    images[0].save(buffer, format="GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
    return write_bytes(output, buffer.getvalue())


def _given(processor: GridProcessor, puzzle_L: np.ndarray) -> np.ndarray:
    """bool [L]: what is not to be filled in: clues; walls, start and goal."""
    return puzzle_L != processor.blank_token_id


def _frame(
    processor: GridProcessor,
    puzzle_L: np.ndarray,
    answer_L: np.ndarray,
    last_L: np.ndarray,
    sure_L: np.ndarray,
    text: str,
) -> Image.Image:
    height, width = processor.grid_shape
    figure = Figure(figsize=(4.4, 5.0 * height / width), dpi=90, facecolor=PAPER)
    axes = figure.add_axes((0.03, 0.15, 0.94, 0.82))
    given_L, characters = _given(processor, puzzle_L), "?" + processor.characters
    for cell, token in enumerate(answer_L):
        row, column = divmod(cell, width)
        untouched = token == puzzle_L[cell]
        dark = untouched and given_L[cell]
        colour = GIVEN if dark else UNTOUCHED if untouched else SURE(sure_L[cell])
        axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, edgecolor="#c9c9c4", linewidth=0.4))
        character = characters[token] if token < len(characters) else "?"
        if (processor.task == "maze" and character in "SG") or (
            max(height, width) <= MAX_WRITTEN and (dark or not untouched)
        ):
            axes.text(
                column + 0.5, row + 0.53, character, ha="center", va="center", color=PAPER if dark else INK,
                fontsize=max(7, 150 / max(height, width)),
            )  # fmt: skip
        if token != last_L[cell]:
            corner, line = (column + 0.04, row + 0.04), 16 / max(height, width)
            axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor=INK, linewidth=line, zorder=3))
    if processor.task == "sudoku":
        box = round(height**0.5)
        for place in range(0, height + 1, box):
            axes.plot([0, width], [place, place], color=INK, linewidth=1.6, clip_on=False)
            axes.plot([place, place], [0, height], color=INK, linewidth=1.6, clip_on=False)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    axes.axis("off")
    figure.text(0.5, 0.07, text, ha="center", va="center", fontsize=9.5, color=INK)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(64, dither=Image.Dither.NONE)
