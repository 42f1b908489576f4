"""The "grid-reasoning" pipeline: puzzles in, answers, halt probability and steps out; votes and trace on request.

    solve = pipeline("grid-reasoning", model=..., trust_remote_code=True)  # not asked for where the package is imported
    solve("53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79")["answer"]

transformers' pipeline runs the items of a list one by one or pads them together; here all views of all puzzles of a
list fill one batch after another.

Shapes: B views of a forward pass, K trajectories of each, L = height * width positions.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import Pipeline

from .arc_task_trm import ArcTask, Pair
from .processing_trm import crop_colours, text_to_colours
from .puzzle_files_trm import NoPuzzle, read_file
from .puzzle_index_trm import PuzzleIndex
from .puzzle_input_trm import Puzzle, read_puzzle, split_puzzles
from .reasoning_config_trm import RULES, ReasoningConfig
from .verifiers_trm import verifier_for
from .views_trm import View, answer_text, arc_augmentations, arc_view, check_views, draw_view, most_views
from .voting_trm import Candidate, rank_votes

BATCH_SIZE = 64
MOST_SEED = 2**63 - 1  # of a generator of PyTorch
AT_HAND = (str, dict, list, tuple, np.ndarray, torch.Tensor, Path, Puzzle)  # not to be iterated one by one
OF_THE_CALL = (
    "reasoning_config",
    "return_trace",
    "seed",
    "unknown",
    "characters",
    "columns",
)  # parameters that are no fields of its own


class Viewed(NamedTuple):
    """A view of puzzle `number`: its token ids [L]; is_own: that of the puzzle itself."""

    number: int
    puzzle: Puzzle
    is_own: bool
    view: View
    input_ids: np.ndarray


class Vote(NamedTuple):
    """The answer to one view of puzzle `number`, as text in the puzzle's own frame, "" for no grid."""

    number: int
    puzzle: Puzzle
    answer: str
    halt_probability: float
    steps: int
    shown: str  # of the puzzle itself, also where it is no grid; else empty, as the next two
    trace: list[dict[str, Any]]
    trajectories: list[Candidate] | None  # None where there was a single one
    certain: bool | None  # None without a certificate
    attempts: int  # trajectories run, of this view; 0 without a certificate


class GridReasoningPipeline(Pipeline):
    """Solves Sudokus, mazes, ARC grids and text grids with a tiny recursive model.

    Call it with one puzzle or a list (see puzzle_input_trm), or the Path of a file (see puzzle_files_trm); for one
    puzzle it returns a dict, for a list or file a list of them, for an iterator or a torch Dataset an iterator:
        answer: the grid, a string or, for ARC, a list of rows; None when what the model answers is no grid.
        halt_probability: how probable the model holds it that this is right; None where the model has diverged.
            With views the mean over the votes for this answer.
        steps: supervision steps taken; with views those of the puzzle as given.
        trace: on request, [{"step", "answer", "halt_probability"}, ...] of the puzzle as given.
        views, votes: with several views, how many there were, and [{"answer", "votes", "halt_probability"}, ...], best
            first: `answer` is the first. With one view and several trajectories the votes are theirs, whatever
            `selection` makes of them.
        certain, attempts: with a certificate (see ReasoningConfig), whether the answer has it, and how many attempts
            were made, views and trajectories in turn. Where it is False `answer` is None, "not sure", and
            halt_probability and steps are those of the puzzle as given; there are no views and votes.
        puzzle_task: of ARC and a model with a puzzle table, the task whose rows were used; None: the model does not
            know the task, or was told none, and its answer is a guess.

    Parameters, of a call or of the construction:
        reasoning_config, or single fields of it (max_steps, halt, views, num_trajectories, ...): see ReasoningConfig.
            What is not given is the checkpoint's own. views: of a Sudoku relabellings, of a maze up to 8 rotations and
            reflections, of ARC the rows of its task in the puzzle table, else drawn augmentations; fewer where there
            are not so many. selection="valid" and certificate="rules" ask the rules of Sudoku or mazes, which the
            model does not know.
        return_trace: keep the answers of every step.
        seed: of the noise, and of the views: view v of puzzle n of a list is that of puzzle n of an evaluation.
        characters: what the puzzles are written with, in the order of the processor's characters, where that can be
            read in two ways or is something else. Answers are written as their puzzles are.
        columns: {"question": name of its column}, of a file's table, where the name does not say it.
        unknown: a character to show for a cell that the model leaves empty; None: such an answer is None.
        batch_size: views that run together, 64 by default.

    Raises:
        ValueError: a puzzle that cannot be read, by its number, the place and what is allowed; or a parameter.
        TypeError: an unknown parameter.
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
        why = config.misfit(processor.task, processor.vocab_size, processor.seq_len)
        if why is not None:
            raise ValueError(f"the model does not fit the processor, whose grids are {processor.grid_shape}: {why}")

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **parameters: Any) -> Any:  # type: ignore[override]
        """See the class."""
        self._sanitize_parameters(**parameters)
        call = {**self._preprocess_params, **parameters}
        sizes = (batch_size, self._batch_size, BATCH_SIZE)
        batch_size = next(size for size in sizes if size is not None)
        _check_whole("batch_size", batch_size, 1)
        characters = call.get("characters")
        if hasattr(inputs, "columns"):  # of pandas and its like; their iteration gives names, not puzzles
            raise ValueError(
                f"a {type(inputs).__name__} is no list of puzzles; give the column that holds them, table['question'], "
                f"or a file as a Path"
            )
        if isinstance(inputs, Iterable | Dataset) and not isinstance(inputs, AT_HAND):
            one_by_one: Any = inputs
            puzzles_read = (self._read(number, one, characters) for number, one in enumerate(one_by_one, start=1))
            return self._answers(puzzles_read, batch_size, call)
        processor, columns = self.feature_extractor, call.get("columns")
        several = (
            self._file(inputs, characters, columns) if isinstance(inputs, Path) else split_puzzles(inputs, processor)
        )
        if several is None:
            puzzles = [self._known(read_puzzle(inputs, processor, characters))]
        else:
            puzzles = [self._read(number, one, characters) for number, one in enumerate(several, start=1)]
        results = list(self._answers(puzzles, batch_size, call))  # all puzzles were read before
        return results[0] if several is None else results

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Checked alone: what the construction said holds where a call says nothing, all of it as one."""
        ReasoningConfig.check_names(parameters, (*OF_THE_CALL, "batch_size"))
        self._reasoning(parameters)
        _check_whole("seed", parameters.get("seed", 0), 0, MOST_SEED)
        if not isinstance(parameters.get("return_trace", False), bool):
            raise ValueError(f"return_trace={parameters['return_trace']!r} is not allowed; allowed: True, False")
        unknown = parameters.get("unknown")
        if unknown is not None and not (isinstance(unknown, str) and len(unknown) == 1):
            raise ValueError(f"unknown={unknown!r} is not allowed; allowed: None, or one character")
        return parameters, {}, {}

    def _reasoning(self, parameters: dict[str, Any]) -> ReasoningConfig:
        config = parameters.get("reasoning_config") or self.model.reasoning_config
        if type(config).__name__ != ReasoningConfig.__name__:  # by name: a checkpoint's own code has its own class
            raise ValueError(f"reasoning_config={config!r} is not allowed; allowed: a ReasoningConfig")
        return config.updated(**{name: value for name, value in parameters.items() if name not in OF_THE_CALL})

    def preprocess(  # type: ignore[override]
        self, puzzle: Puzzle, number: int = 0, views: int = 1, seed: int = 0
    ) -> Iterator[View]:
        """The views of puzzle `number`, itself first."""
        processor = self.feature_extractor
        shape = processor.grid_shape
        if processor.task != "arc":
            count = most_views(processor.task, shape, views)
            return (draw_view(processor.task, shape, seed, number, view) for view in range(count))
        alone = ArcTask("", "", (), (Pair(crop_colours(puzzle.input_ids.reshape(shape)), None),))
        task, name = puzzle.arc_task or alone, self._name_in_table(puzzle)
        rows_V, augmentations_VA = arc_augmentations(task, name, self.model.puzzle_index, shape, views, seed)
        return (arc_view(shape, *view) for view in zip(rows_V.tolist(), augmentations_VA, strict=True))

    def _forward(  # type: ignore[override]
        self, model_inputs: dict[str, torch.Tensor], **how: Any
    ) -> dict[str, Any]:
        solved = self.model.solve(**model_inputs, **how)
        ended = solved.trajectories
        return {
            "answers": solved.answers,
            "halt_probability": solved.halt_probability,
            "steps": solved.steps,
            "trace": [tuple(step) for step in solved.trace or ()],
            "trajectories": None if ended is None else (ended.answers, ended.halt_logits.float().sigmoid()),
            "certain": solved.certain,
            "attempts": solved.attempts,
        }

    def postprocess(self, votes: list[Vote], views: int = 1) -> dict[str, Any]:  # type: ignore[override]
        """The result of one puzzle from the votes of its views, the first of them its own."""
        own = votes[0]
        result = self._voted(votes, views) if own.certain is None else self._certified(votes)
        if own.trace:
            result["trace"] = [self._shown(step, own.puzzle) for step in own.trace]
        if self.feature_extractor.task == "arc" and self.model.puzzle_index is not None:
            result["puzzle_task"] = self._name_in_table(own.puzzle)
        return self._shown(result, own.puzzle)

    def _voted(self, votes: list[Vote], views: int) -> dict[str, Any]:
        own = votes[0]
        result: dict[str, Any] = {"answer": own.shown, "halt_probability": own.halt_probability, "steps": own.steps}
        ranked = own.trajectories
        if views > 1:
            ranked = rank_votes([vote.answer for vote in votes], [vote.halt_probability for vote in votes])
            if ranked:
                result |= {"answer": ranked[0].answer, "halt_probability": ranked[0].halt_probability}
        if ranked is not None:
            result["views"] = len(votes)
            result["votes"] = [self._shown(candidate._asdict(), own.puzzle) for candidate in ranked]
        return result

    def _certified(self, votes: list[Vote]) -> dict[str, Any]:
        """Of attempts, of which only the last can be certain."""
        own, last = votes[0], votes[-1]
        given = last if last.certain else own
        return {
            "answer": last.answer if last.certain else None,
            "halt_probability": given.halt_probability,
            "steps": given.steps,
            "certain": last.certain,
            "attempts": sum(vote.attempts for vote in votes),
        }

    def _file(self, path: Path, characters: str | None, columns: Mapping[str, str] | None) -> list[Puzzle]:
        puzzles: list[Puzzle] = []
        for found in read_file(path, self.feature_extractor, characters, columns):
            if isinstance(found, NoPuzzle):
                raise ValueError(f"{found.name}: {found.error}")
            puzzles.append(found)
        return puzzles

    def _read(self, number: int, puzzle: Any, characters: str | None) -> Puzzle:
        try:
            return self._known(read_puzzle(puzzle, self.feature_extractor, characters))
        except ValueError as error:
            raise ValueError(f"puzzle {number}: {error}") from error

    def _known(self, puzzle: Puzzle) -> Puzzle:
        """Itself, if its task is in the puzzle table or it names none."""
        if puzzle.puzzle_task is not None:
            index: PuzzleIndex | None = self.model.puzzle_index
            if index is None:
                raise ValueError(
                    f"puzzle_task={puzzle.puzzle_task!r}: the model has no puzzle table (puzzle_prefix_len=0)"
                )
            index.rows_of(index.name_of(puzzle.puzzle_task) or puzzle.puzzle_task)
        return puzzle

    def _name_in_table(self, puzzle: Puzzle) -> str | None:
        """What the puzzle table calls the task; one from a file has an id alone."""
        index: PuzzleIndex | None = self.model.puzzle_index
        task = puzzle.puzzle_task
        if task is None and puzzle.arc_task is not None:
            task = puzzle.arc_task.id
        return None if index is None or task is None else index.name_of(task)

    def _answers(self, puzzles: Iterable[Puzzle], batch_size: int, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The results in order. Views of one puzzle follow each other; a batch takes what comes, of any puzzle."""
        config, seed = self._reasoning(call), call.get("seed", 0)
        check_views(self.feature_extractor.task, config.views)
        each = config.updated(views=1, max_batch=config.max_batch or batch_size)
        how: dict[str, Any] = {"reasoning_config": each, "return_trace": call.get("return_trace", False)}
        if config.is_random:
            how["generator"] = torch.Generator().manual_seed(seed)
        if config.selection == "valid" or config.certificate == RULES:
            how["verifier"] = verifier_for(self.feature_extractor.task, self.feature_extractor.grid_shape)
        numbered = enumerate(puzzles)
        if config.certificate is not None:
            for some in iter(lambda: list(islice(numbered, batch_size)), []):
                yield from self._until_certain(some, config.views, seed, how, call.get("unknown"))
            return
        views = (
            Viewed(number, puzzle, position == 0, view, view.apply(puzzle.input_ids))
            for number, puzzle in numbered
            for position, view in enumerate(self.preprocess(puzzle, number, config.views, seed))
        )
        batches = iter(lambda: list(islice(views, batch_size)), [])
        votes = (vote for batch in batches for vote in self._votes(batch, how, call.get("unknown")))
        for _, of_puzzle in groupby(votes, key=lambda vote: vote.number):
            yield self.postprocess(list(of_puzzle), config.views)

    def _until_certain(
        self, puzzles: list[tuple[int, Puzzle]], views: int, seed: int, how: dict[str, Any], unknown: str | None
    ) -> Iterator[dict[str, Any]]:
        """The results of a batch of numbered puzzles: their views in turn, of those that none before made certain."""
        votes: dict[int, list[Vote]] = {number: [] for number, _ in puzzles}
        left = {number: self.preprocess(puzzle, number, views, seed) for number, puzzle in puzzles}
        named = dict(puzzles)
        while left:
            now = [(number, view) for number, rest in left.items() if (view := next(rest, None)) is not None]
            if now:
                batch = [
                    Viewed(number, named[number], not votes[number], view, view.apply(named[number].input_ids))
                    for number, view in now
                ]
                for vote in self._votes(batch, how, unknown):
                    votes[vote.number].append(vote)
            left = {number: left[number] for number, _ in now if not votes[number][-1].certain}
        yield from (self.postprocess(of_puzzle) for of_puzzle in votes.values())

    def _votes(self, batch: list[Viewed], how: dict[str, Any], unknown: str | None) -> list[Vote]:
        inputs = {
            "input_ids": torch.from_numpy(np.stack([viewed.input_ids for viewed in batch])),
            "puzzle_ids": torch.tensor([viewed.view.puzzle_row for viewed in batch]),
        }
        solved = self.forward(inputs, **how)
        traces: list[list[dict[str, Any]]] = [[] for _ in batch]
        for step, (rows, answers_bL, probability_b, *_) in enumerate(solved["trace"], start=1):
            for row, answer_L, probability in zip(rows.tolist(), answers_bL.numpy(), probability_b.tolist()):
                if batch[row].is_own:
                    answer = self._text(batch[row].view, answer_L, unknown)
                    traces[row].append({"step": step, "answer": answer, "halt_probability": probability})
        certified = [(None, 0)] * len(batch)
        if solved["certain"] is not None:
            certified = list(zip(solved["certain"].tolist(), solved["attempts"].tolist()))
        outcomes = zip(solved["answers"].numpy(), solved["halt_probability"].tolist(), solved["steps"].tolist(), traces)
        votes = []
        for row, (viewed, (answer_L, probability, steps, trace)) in enumerate(zip(batch, outcomes)):
            number, puzzle, is_own, view, _ = viewed
            answer, shown, ranked = self._text(view, answer_L), "", None
            if is_own:
                shown, ranked = self._text(view, answer_L, unknown), self._ranked(view, row, solved["trajectories"])
            held = answer, probability, steps, shown, trace, ranked
            votes.append(Vote(number, puzzle, *held, *certified[row]))
        return votes

    def _ranked(self, view: View, row: int, trajectories: Any) -> list[Candidate] | None:
        """The distinct answers of the trajectories of a view; None of a single one."""
        if trajectories is None:
            return None
        answers_BKL, probability_BK = trajectories
        texts = [self._text(view, answer_L) for answer_L in answers_BKL[row].numpy()]
        return rank_votes(texts, probability_BK[row].tolist())

    def _text(self, view: View, answer_L: np.ndarray, unknown: str | None = None) -> str:
        """The answer to a view in the puzzle's own frame; "" for no grid, unless `unknown` stands for empty cells."""
        processor, ids_L = self.feature_extractor, view.undo(answer_L)
        if unknown is None or processor.task == "arc":
            return answer_text(processor, ids_L)
        characters = unknown + processor.characters
        return "".join(characters[token] for token in ids_L)

    def _shown(self, result: dict[str, Any], puzzle: Puzzle) -> dict[str, Any]:
        """With the answer as the puzzle is written, None for no grid; a probability that is no number as None."""
        answer, probability = result["answer"] or None, result["halt_probability"]
        if answer is not None and self.feature_extractor.task == "arc":
            answer = text_to_colours(answer).tolist()
        answer = puzzle.as_written(answer, self.feature_extractor) if puzzle.written else answer
        return result | {"answer": answer, "halt_probability": probability if math.isfinite(probability) else None}


def _check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    if not (type(value) is int and value >= least and (most is None or value <= most)):
        to = "" if most is None else f" to {most}"
        raise ValueError(f"{name}={value!r} is not allowed; allowed: whole numbers from {least}{to}")
