"""The "grid-reasoning" pipeline: puzzles in, answers, halt probability and steps out; votes and trace on request.

    solve = pipeline("grid-reasoning", model=..., trust_remote_code=True)  # not asked for where the package is imported
    solve("53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79")["answer"]

transformers' pipeline runs the items of a list one by one or pads them together; here all views of all puzzles of a
list fill one batch after another.

Shapes: B views of a forward pass, L = height * width positions.
"""

import difflib
import math
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import Pipeline

from .processing_trm import crop_colours, text_to_colours
from .puzzle_index_trm import BLANK_ROW, PuzzleIndex
from .puzzle_input_trm import Puzzle, read_puzzle, split_puzzles
from .verifiers_trm import verifier_for
from .voting_trm import View, arc_views, draw_colour_augmentations, rank_votes, rows_of_task, text_views

BATCH_SIZE = 64
AT_HAND = (str, dict, list, tuple, np.ndarray, torch.Tensor)  # not to be iterated one by one
PREPROCESS_PARAMETERS = ("num_votes", "seed")
SEARCH_PARAMETERS = tuple("num_trajectories noise_std noise_on random_start selection guidance damping".split())
FORWARD_PARAMETERS = ("max_steps", "halt", "return_trace", *SEARCH_PARAMETERS)
SMALLEST = {"num_votes": 1, "seed": 0, "max_steps": 1, "num_trajectories": 1, "batch_size": 1}  # whole numbers
SWITCHES = ("return_trace", "random_start")


class Vote(NamedTuple):
    """The answer to one view of puzzle `number`, as text in the puzzle's own frame, "" for no grid."""

    number: int
    answer: str
    halt_probability: float
    steps: int
    trace: list[dict[str, Any]]  # of the puzzle itself, on request; else empty


class GridReasoningPipeline(Pipeline):
    """Solves Sudokus, mazes, ARC grids and text grids with a tiny recursive model.

    Call it with one puzzle or a list (see puzzle_input_trm); for one puzzle it returns a dict, for a list a list of
    them, for an iterator or a torch Dataset an iterator:
        answer: the grid, a string or, for ARC, a list of rows; None when what the model answers is no grid.
        halt_probability: how probable the model holds it that this is right; None where the model has diverged.
            With votes the mean over the votes for this answer.
        steps: supervision steps taken; with votes those of the puzzle as given.
        trace: on request, [{"step", "answer", "halt_probability"}, ...] of the puzzle as given.
        votes: with num_votes > 1, [{"answer", "votes", "halt_probability"}, ...], best first: `answer` is the first.

    Parameters, of a call or of the construction:
        max_steps: supervision steps; None takes config.halt_max_steps. halt: stop at the first step that the model
            believes to be right, with a probability above 0.5 (True) or this number. return_trace: keep the answers of
            every step.
        num_votes: how many views of a puzzle vote, itself included: of a Sudoku relabellings, of a maze up to 8
            rotations and reflections, of ARC the rows of its `puzzle_task`, else drawn augmentations. Fewer where there
            are not so many. seed: of what is drawn.
        num_trajectories, noise_std, noise_on, random_start, selection, guidance, damping: as `solve` takes them;
            selection="valid" asks the rules of Sudoku or mazes, which the model does not know.
        batch_size: trajectories that run together, 64 by default; bounds the memory.

    Raises:
        ValueError: a puzzle that cannot be read, by its number, the place and what is allowed; or a parameter.
    """

    model: Any
    feature_extractor: Any  # GridProcessor
    _load_tokenizer: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = True
    _load_processor: Any = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        processor, config = self.feature_extractor, self.model.config
        if processor is None:
            raise ValueError('the "grid-reasoning" pipeline needs a processor: feature_extractor=GridProcessor(...)')
        for name, of_model, of_processor in (
            ("vocab_size", config.vocab_size, processor.vocab_size),
            ("seq_len", config.seq_len, processor.seq_len),
        ):
            if of_model != of_processor:
                raise ValueError(
                    f"the model's {name}={of_model} does not fit {processor.task!r} puzzles of {processor.grid_shape}, "
                    f"which need {name}={of_processor}"
                )

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **parameters: Any) -> Any:  # type: ignore[override]
        """See the class."""
        preprocess, forward, _ = self._sanitize_parameters(**parameters)
        preprocess, forward = {**self._preprocess_params, **preprocess}, {**self._forward_params, **forward}
        sizes = (batch_size, self._batch_size, BATCH_SIZE)
        batch_size = next(size for size in sizes if size is not None)
        _check_parameter("batch_size", batch_size)
        if isinstance(inputs, Iterable | Dataset) and not isinstance(inputs, AT_HAND):
            one_by_one: Any = inputs
            return self._answers(map(self._read, enumerate(one_by_one, start=1)), batch_size, preprocess, forward)
        several = split_puzzles(inputs, self.feature_extractor)
        if several is None:
            puzzles = [read_puzzle(inputs, self.feature_extractor)]
        else:
            puzzles = [self._read(numbered) for numbered in enumerate(several, start=1)]
        results = list(self._answers(puzzles, batch_size, preprocess, forward))  # all puzzles were read before
        return results[0] if several is None else results

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        for name, value in parameters.items():
            if name not in PREPROCESS_PARAMETERS + FORWARD_PARAMETERS:
                known = (*PREPROCESS_PARAMETERS, *FORWARD_PARAMETERS, "batch_size")
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"allowed: {', '.join(known)}"
                raise TypeError(f"the pipeline has no parameter {name!r}; {hint}")
            _check_parameter(name, value)
        preprocess = {name: value for name, value in parameters.items() if name in PREPROCESS_PARAMETERS}
        return preprocess, {name: value for name, value in parameters.items() if name not in preprocess}, {}

    def preprocess(self, puzzle: Puzzle, num_votes: int = 1, seed: int = 0) -> Iterator[View]:  # type: ignore[override]
        """The views of one puzzle, itself first."""
        processor = self.feature_extractor
        if processor.task != "arc":
            return text_views(processor, puzzle.input_ids, num_votes, seed)
        colours_hw = crop_colours(puzzle.input_ids.reshape(processor.grid_shape))
        if puzzle.puzzle_task is None:
            square = processor.grid_shape[0] == processor.grid_shape[1]
            augmentations_VA = draw_colour_augmentations(colours_hw, num_votes, seed, square)
            rows_V = np.full(len(augmentations_VA), BLANK_ROW)
        else:
            rows_V, augmentations_VA = rows_of_task(self._index(puzzle.puzzle_task), puzzle.puzzle_task, num_votes)
        return arc_views(processor, colours_hw, rows_V, augmentations_VA)

    def _forward(  # type: ignore[override]
        self,
        model_inputs: dict[str, torch.Tensor],
        max_steps: int | None = None,
        halt: bool | float = True,
        return_trace: bool = False,
        **search: Any,
    ) -> dict[str, Any]:
        solved = self.model.solve(**model_inputs, max_steps=max_steps, halt=halt, return_trace=return_trace, **search)
        return {
            "answers": solved.answers,
            "halt_probability": solved.halt_probability,
            "steps": solved.steps,
            "trace": [tuple(step) for step in solved.trace or ()],
        }

    def postprocess(self, votes: list[Vote], num_votes: int = 1) -> dict[str, Any]:  # type: ignore[override]
        """The result of one puzzle from the votes of its views, the first of them its own."""
        own = votes[0]
        result = {"answer": own.answer, "halt_probability": own.halt_probability, "steps": own.steps}
        if num_votes > 1:
            ranked = rank_votes([vote.answer for vote in votes], [vote.halt_probability for vote in votes])
            if ranked:
                result |= {"answer": ranked[0].answer, "halt_probability": ranked[0].halt_probability}
            result["votes"] = [self._shown(candidate._asdict()) for candidate in ranked]
        if own.trace:
            result["trace"] = [self._shown(step) for step in own.trace]
        return self._shown(result)

    def _read(self, numbered: tuple[int, Any]) -> Puzzle:
        number, puzzle = numbered
        try:
            parsed = read_puzzle(puzzle, self.feature_extractor)
            if parsed.puzzle_task is not None:
                self._index(parsed.puzzle_task).rows_of(parsed.puzzle_task)
        except ValueError as error:
            raise ValueError(f"puzzle {number}: {error}") from error
        return parsed

    def _index(self, task: str) -> PuzzleIndex:
        index = self.model.puzzle_index
        if index is None:
            raise ValueError(f"puzzle_task={task!r}: the model has no puzzle table (puzzle_prefix_len=0)")
        return index

    def _answers(
        self, puzzles: Iterable[Puzzle], batch_size: int, preprocess: dict[str, Any], forward: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """The results in order. Views of one puzzle follow each other; a batch takes what comes, of any puzzle."""
        views = (
            (number, position == 0, view)
            for number, puzzle in enumerate(puzzles)
            for position, view in enumerate(self.preprocess(puzzle, **preprocess))
        )
        if forward.keys() & set(SEARCH_PARAMETERS):
            forward = {**forward, "max_batch": batch_size}
            forward["generator"] = torch.Generator().manual_seed(preprocess.get("seed", 0))
            if forward.get("selection") == "valid":
                forward["verifier"] = verifier_for(self.feature_extractor.task, self.feature_extractor.grid_shape)
        batches = iter(lambda: list(islice(views, batch_size)), [])
        votes = (vote for batch in batches for vote in self._votes(batch, forward))
        for _, of_puzzle in groupby(votes, key=lambda vote: vote.number):
            yield self.postprocess(list(of_puzzle), preprocess.get("num_votes", 1))

    def _votes(self, batch: list[tuple[int, bool, View]], forward: dict[str, Any]) -> list[Vote]:
        """The votes of a batch of (number of the puzzle, whether this is the puzzle itself, view)."""
        inputs = {
            "input_ids": torch.from_numpy(np.stack([view.input_ids for _, _, view in batch])),
            "puzzle_ids": torch.tensor([view.puzzle_row for _, _, view in batch]),
        }
        solved = self.forward(inputs, **forward)
        traces: list[list[dict[str, Any]]] = [[] for _ in batch]
        for step, (rows, answers_bL, probability_b, *_) in enumerate(solved["trace"], start=1):
            for row, answer_L, probability in zip(rows.tolist(), answers_bL.numpy(), probability_b.tolist()):
                _, is_own, view = batch[row]
                if is_own:
                    frame = {"step": step, "answer": view.undo(answer_L), "halt_probability": probability}
                    traces[row].append(frame)
        outcomes = zip(solved["answers"].numpy(), solved["halt_probability"].tolist(), solved["steps"].tolist(), traces)
        return [
            Vote(number, view.undo(answer_L), probability, steps, trace)
            for (number, _, view), (answer_L, probability, steps, trace) in zip(batch, outcomes)
        ]

    def _shown(self, result: dict[str, Any]) -> dict[str, Any]:
        """With the answer as the grid that users have, None for no grid; a probability that is no number as None."""
        answer, probability = result["answer"] or None, result["halt_probability"]
        if answer is not None and self.feature_extractor.task == "arc":
            answer = text_to_colours(answer).tolist()
        return result | {"answer": answer, "halt_probability": probability if math.isfinite(probability) else None}


def _check_parameter(name: str, value: Any) -> None:
    if name in SMALLEST:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if not (is_number and value >= SMALLEST[name]) and not (name == "max_steps" and value is None):
            raise ValueError(f"{name}={value!r} is not allowed; allowed: whole numbers from {SMALLEST[name]}")
    elif name == "halt" and not (isinstance(value, bool) or (isinstance(value, float) and 0 < value < 1)):
        raise ValueError(f"halt={value!r} is not allowed; allowed: True, False, or a probability between 0 and 1")
    elif name in SWITCHES and not isinstance(value, bool):
        raise ValueError(f"{name}={value!r} is not allowed; allowed: True, False")
