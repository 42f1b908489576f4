"""Evaluate a model on a set of puzzles: one pass of supervision steps, every step scored.

TRM (arXiv 2510.04871, section 4): the answer is refined over supervision steps, and a halting head says when to stop.
A pass that never stops early and scores the answer after each step yields the accuracy after any number of steps, the
halting histogram and the accuracy of per-puzzle halting all at once.

Metrics (JSON-ready; shares in [0, 1], intervals are Wilson's at 95 %):

    count, task, fingerprint         puzzles scored, their task and the hash of their rows
    exact_accuracy, exact_accuracy_ci95       every cell right after the last step
    cell_accuracy                    cells right among the blank ones (all scored cells where the task has no blank)
    valid, valid_ci95                only with `score_valid`: the answer obeys the rules and keeps the givens, whatever
                                     the label says; of mazes valid_and_shortest, valid_and_shortest_ci95
    by_step                          exact accuracy after step 1..steps            (absent with halt=True)
    halting_histogram                puzzles whose first positive halt logit comes at step 1..steps
    never_halted, mean_halting_step  puzzles without any; mean step, counting those as `steps`
    halt                             {count, exact_accuracy, ci95, halted, exact_when_halted}: stop at the first halt
    by_source                        {source: {count, exact_accuracy, ci95, by_step, valid}}
    by_rating                        [{min, max, count, exact_accuracy, ci95}]: at most five groups of rising difficulty
    steps, early_exit                supervision steps a puzzle could take; whether puzzles really stopped early, at
                                     a halt probability of 0.5 (true) or this number
    non_finite                       puzzles with a NaN or infinite halt logit (a diverged model)
    relabelled                       with `relabel_seed`, of Sudokus solved again with other digits; see `relabelling`
    baseline                         of Sudokus {name, exact_accuracy, ci95}: what is solved without a model
    engine                           what computed the steps, by name; see engines_trm
    search                           only with a search: its settings
    seconds, puzzles_per_second      wall-clock time of the pass

With a search (several trajectories a puzzle, guidance, damping; see `solve`) every figure is that of the trajectory
taken: after step s the search chooses among the trajectories as they stand then, and its halt logit is the taken one's.

Shapes: N puzzles, B batch, K trajectories of each, L positions, S supervision steps.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..engines_trm import choose_engine, resolve_engine
from ..modeling_trm import TRMForGridReasoning
from ..reasoning_config_trm import ReasoningConfig
from ..reasoning_trm import answers_from_logits
from ..trajectories_trm import Verifier, select
from .baseline import baseline
from .engine import in_evaluation_mode
from .puzzles import PAD_TOKEN_ID, Puzzles, check_puzzles_fit, tensors_of
from .records import EvaluationRecords, summarise
from .relabelling import relabelled, relabelling_metrics
from .stepwise import trajectories_by_step

EVERY_STEP = ReasoningConfig()  # all steps of the architecture, one trajectory, whatever the checkpoint's own defaults

ScoreValid = Callable[[Any, Any], bool]
RunBatch = Callable[..., dict[str, torch.Tensor]]


def evaluate_puzzles(
    model: TRMForGridReasoning,
    puzzles: Puzzles,
    reasoning_config: ReasoningConfig = EVERY_STEP,
    *,
    verifier: Verifier | None = None,
    generator: torch.Generator | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    progress: bool = True,
    score_valid: ScoreValid | None = None,
    relabel_seed: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Score the model on the puzzles. See the module's docstring for the metrics.

    Args:
        reasoning_config: how each puzzle is solved. Not the checkpoint's own: the figures of two models are of the
            same steps, and of every one of them, unless it is said otherwise. With halting (which is cheaper) there
            is no `by_step`, and `exact_accuracy` is that of the answers given at the stop.
        verifier, generator: as `model.solve` takes them.
        batch_size: does not change the metrics beyond float error.
        device: where to run; the model is moved there. Its own device when None. Run under autocast to use bf16.
        score_valid: `(question, answer) -> bool` on decoded grids; see `validity_check` in datasets_builders.
        relabel_seed: solve each Sudoku a second time with its digits renamed; None: do not.
        options: fields of ReasoningConfig, in the place of reasoning_config's.

    Raises:
        TypeError: an unknown option.
        ValueError: for an empty set, sizes below 1, a model of another size or vocabulary than the puzzles, or a
            configuration that `model.solve` does not take.
    """
    config = reasoning_config.updated(**options)
    renamed = None if relabel_seed is None else relabelled(puzzles, relabel_seed)
    record = partial(
        record_puzzles,
        model,
        reasoning_config=config,
        verifier=verifier,
        generator=generator,
        batch_size=batch_size,
        device=device,
        progress=progress,
    )
    started = time.perf_counter()
    records = record(puzzles, score_valid=score_valid)
    seconds = time.perf_counter() - started
    metrics = summarise(records, "valid_and_shortest" if puzzles.task == "maze" else "valid")
    metrics |= {
        "task": puzzles.task,
        "fingerprint": puzzles.fingerprint,
        "early_exit": config.halt,
        "engine": resolve_engine(model, config.engine),
        "seconds": seconds,
        "puzzles_per_second": len(records) / seconds,
        **baseline(puzzles),
    }
    if renamed is not None:
        metrics["relabelled"] = relabelling_metrics(records.exact[:, -1], record(renamed).exact[:, -1])
    return metrics | ({"search": config.search} if config.search else {})


def record_puzzles(
    model: TRMForGridReasoning,
    puzzles: Puzzles,
    reasoning_config: ReasoningConfig = EVERY_STEP,
    *,
    verifier: Verifier | None = None,
    generator: torch.Generator | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    progress: bool = True,
    score_valid: ScoreValid | None = None,
    **options: Any,
) -> EvaluationRecords:
    """As `evaluate_puzzles`, but return the records: merge the shards of several processes, then `summarise`."""
    config = reasoning_config.updated(**options)
    check_puzzles_fit(model, puzzles)
    steps = config.max_steps or model.config.halt_max_steps
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if device is not None:
        torch.nn.Module.to(model, device)
    parts: list[EvaluationRecords] = []
    right = 0
    with (
        in_evaluation_mode(model),
        tqdm(total=len(puzzles), desc="evaluating", unit="puzzle", disable=not progress) as bar,
    ):
        run_batch = _way_to_run(model, config, verifier=verifier, generator=generator)
        for rows in _batches(len(puzzles), batch_size):
            parts.append(_record_batch(model, puzzles.select(rows), steps, config.halt, run_batch, score_valid))
            right += int(parts[-1].exact[:, -1].sum())
            bar.set_postfix(exact=f"{right / (bar.n + len(rows)):.1%}", refresh=False)
            bar.update(len(rows))
    return EvaluationRecords.concatenate(parts)


def _way_to_run(model: TRMForGridReasoning, config: ReasoningConfig, **run_time: Any) -> RunBatch:
    """Of a model in evaluation mode. Raises ValueError for an engine that is unknown or cannot run here."""
    step_by = choose_engine(model, config.engine)
    if config.halt:
        return partial(_run_with_early_exit, config=config, **run_time)
    if config.search or run_time["verifier"] is not None:
        return partial(_run_search, config=config, **run_time)
    return partial(_run_every_step, step_by)


def _batches(total: int, batch_size: int) -> Iterator[np.ndarray]:
    """Batches of nearly equal size: a short last one would make a compiled stack compile once more, and waste."""
    return iter(np.array_split(np.arange(total), -(-total // batch_size)))


def _record_batch(
    model: TRMForGridReasoning,
    batch: Puzzles,
    steps: int,
    halt: bool | float,
    run_batch: RunBatch,
    score_valid: ScoreValid | None,
) -> EvaluationRecords:
    input_ids_BL, puzzle_ids_B, labels_BL = tensors_of(batch, model.device)
    with torch.inference_mode():
        tallies = run_batch(model, input_ids_BL, puzzle_ids_B, labels_BL, steps)
        counted_BL = _blank_cells(input_ids_BL, labels_BL, batch.processor.blank_token_id)
        tallies["cells_right"] = ((tallies["answers"] == labels_BL) & counted_BL).sum(dim=1)
        tallies["cells"] = counted_BL.sum(dim=1)
        tallies["answers"] = tallies["answers"].to(torch.uint8)  # as inputs and labels
        # The one transfer of the batch: everything above stays on the device, so that nothing waits for it.
        on_host = {name: tally.cpu().numpy() for name, tally in tallies.items()}
        valid_N = None if score_valid is None else _score_validity(batch, on_host["answers"], score_valid)
    return EvaluationRecords(
        sources=batch.sources,
        ratings=batch.ratings,
        valid=valid_N,
        max_steps=steps,
        early_exit=halt,
        **on_host,
    )


def _run_every_step(
    step_by: Callable[..., Any],
    model: TRMForGridReasoning,
    input_ids_BL: torch.Tensor,
    puzzle_ids_B: torch.Tensor | None,
    labels_BL: torch.Tensor,
    steps: int,
) -> dict[str, torch.Tensor]:
    """All supervision steps for every puzzle, each step's answer compared with the label.

    Args:
        step_by: the model, or what an engine made of it.
    """
    state = model.initial_state(len(input_ids_BL), seq_len=input_ids_BL.shape[1])
    exact, halt_logits = [], []
    for _ in range(steps):
        output = step_by(input_ids_BL, puzzle_ids=puzzle_ids_B, state=state, return_dict=True)
        state = output.state
        answers_BL = answers_from_logits(output.logits, input_ids_BL, model.config.blank_token_id)
        exact.append(_all_scored_right(answers_BL, labels_BL))
        halt_logits.append(output.halt_logits)
    halt_logits_BS = torch.stack(halt_logits, dim=1)
    return {
        "answers": answers_BL,
        "exact": torch.stack(exact, dim=1),
        "halt_probability": halt_logits_BS.float().sigmoid(),
        "first_halt": _first_true(halt_logits_BS > 0),
        "non_finite": ~halt_logits_BS.isfinite().all(dim=1),
    }


def _run_search(
    model: TRMForGridReasoning,
    input_ids_BL: torch.Tensor,
    puzzle_ids_B: torch.Tensor | None,
    labels_BL: torch.Tensor,
    steps: int,
    *,
    config: ReasoningConfig,
    verifier: Verifier | None,
    generator: torch.Generator | None,
) -> dict[str, torch.Tensor]:
    """All supervision steps for every trajectory; after each, the answer taken is compared with the label."""
    K = config.num_trajectories
    inputs_NL = input_ids_BL.repeat_interleave(K, dim=0)
    puzzle_ids_N = None if puzzle_ids_B is None else puzzle_ids_B.repeat_interleave(K)
    each = config.updated(max_steps=steps, num_trajectories=1, selection="halt")
    stand = trajectories_by_step(model, inputs_NL, puzzle_ids_N, K, each, generator=generator)
    takens = [ended.taken(select(ended, config.selection, input_ids_BL, verifier)) for ended in stand]
    return {
        "answers": takens[-1].answers,
        "exact": torch.stack([_all_scored_right(taken.answers, labels_BL) for taken in takens], dim=1),
        "halt_probability": torch.stack([taken.halt_logits.float().sigmoid() for taken in takens], dim=1),
        "first_halt": _first_true(torch.stack([taken.halt_logits > 0 for taken in takens], dim=1)),
        "non_finite": torch.stack([~ended.halt_logits.isfinite().all(dim=1) for ended in stand], dim=1).any(dim=1),
    }


def _run_with_early_exit(
    model: TRMForGridReasoning,
    input_ids_BL: torch.Tensor,
    puzzle_ids_B: torch.Tensor | None,
    labels_BL: torch.Tensor,
    steps: int,
    *,
    config: ReasoningConfig,
    **run_time: Any,
) -> dict[str, torch.Tensor]:
    """Each trajectory (without a search: each puzzle) leaves the batch when it halts."""
    solved = model.solve(input_ids_BL, puzzle_ids_B, config, max_steps=steps, **run_time)
    halted_B = (solved.steps < steps) | (solved.halt_probability > (0.5 if config.halt is True else config.halt))
    return {
        "answers": solved.answers,
        "exact": _all_scored_right(solved.answers, labels_BL)[:, None],
        "halt_probability": solved.halt_probability.float()[:, None],
        "first_halt": torch.where(halted_B, solved.steps, 0),
        "non_finite": ~solved.halt_probability.isfinite(),
    }


def _all_scored_right(answers_BL: torch.Tensor, labels_BL: torch.Tensor) -> torch.Tensor:
    return ((answers_BL == labels_BL) | (labels_BL == PAD_TOKEN_ID)).all(dim=1)


def _blank_cells(input_ids_BL: torch.Tensor, labels_BL: torch.Tensor, blank_token_id: int | None) -> torch.Tensor:
    scored_BL = labels_BL != PAD_TOKEN_ID
    return scored_BL if blank_token_id is None else scored_BL & (input_ids_BL == blank_token_id)


def _first_true(flags_BS: torch.Tensor) -> torch.Tensor:
    """1-based column of the first True of each row, 0 where there is none."""
    return torch.where(flags_BS.any(dim=1), flags_BS.int().argmax(dim=1) + 1, 0)


def _score_validity(batch: Puzzles, answers_BL: np.ndarray, score_valid: ScoreValid) -> np.ndarray:
    decode = batch.processor.decode
    pairs = zip(batch.inputs, answers_BL, strict=True)
    grids = [(decode(question_L), decode(answer_L)) for question_L, answer_L in pairs]
    return np.array([answer is not None and score_valid(question, answer) for question, answer in grids], dtype=bool)
