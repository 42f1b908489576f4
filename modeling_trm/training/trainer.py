"""The run: prepare, step, log, evaluate, checkpoint, resume. Source: arXiv 2510.04871, public code pretrain.py.

Folder of a run:
  log.jsonl          a line every `log_every` steps, and one for each evaluation
  checkpoints/       to resume from (optimisers, slots, averages, ...)
  weights/           best (averaged weights, highest validation accuracy; where there is validation), ema and last
                     (averaged and plain, at the end)
  metrics.json       figures of the final evaluation
  model/             what is published: weights/best (ema without validation) with processor, code, card and plots
"""

import time
import warnings
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.logging import get_logger
from accelerate.utils import ProjectConfiguration
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from ..compiling_trm import allow_forms, can_compile
from ..evaluation.puzzles import Puzzles
from ..evaluation.runner import evaluate_puzzles
from ..memory_trm import keep_freed_memory
from ..modeling_trm import TRMForGridReasoning
from ..operator_files_trm import own_code
from ..utils.machine import computes_in_bf16
from .arguments import Recipe
from .bucket import open_buckets
from .checkpointing import load_progress, save_checkpoint
from .data import RunData
from .determinism import deterministic_algorithms
from .ema import ExponentialMovingAverage
from .optimisers import build_optimisers, core_parameters
from .packing import check_packed
from .planning import measure_costs
from .resuming import check_same_run, load_newest
from .run_folder import RunLog, choose_trackers, save_model
from .schedule import reveal_share
from .step import TrainingStep
from .stopping import Stopping

logger = get_logger(__name__)
TRAINING = "training"  # what the progress bar says when it is not compiling
TABLE = "model.puzzle_emb.weight"
LONGEST_WAIT = timedelta(hours=6)  # of the other processes, while one evaluates alone


class Trainer:
    """Trains one model from a recipe; `train()` resumes by itself from the newest checkpoint of the output folder.

    Args:
        model: what to train, see `initial_model`.
        data: rows to train on, and puzzles of the periodic evaluation, which choose the published weights; without any
            there is none. A run is not resumed with other data.

    Raises:
        ValueError: a recipe that does not fit the data, the processes, or the run that is to be resumed.
    """

    def __init__(self, recipe: Recipe, model: TRMForGridReasoning, data: RunData) -> None:
        self.started = time.perf_counter()
        keep_freed_memory()
        self.recipe, self.data = recipe, data
        self.output = Path(recipe.run.output_dir)
        if data.validation is None and recipe.run.early_stopping_patience is not None:
            patience = recipe.run.early_stopping_patience
            raise ValueError(f"early_stopping_patience={patience} needs validation puzzles, and this run has none")
        for other in data.others:
            why = model.config.misfit(recipe.data.task, other.processor.vocab_size, other.processor.seq_len)
            if why is not None:
                raise ValueError(f"other_sizes: the model does not answer grids of {other.grid}: {why}")
        self.packed = None if recipe.run.resume_from is None else Path(recipe.run.resume_from)
        if self.packed is not None:
            check_packed(self.packed)
        self.accelerator = self._accelerator(choose_trackers(recipe.run.report_to))
        self.model = model.to(self.accelerator.device)
        self.step_flops = cache(partial(data.step_flops, model.config))  # counted once a depth: it takes a millisecond
        self.step = self._training_step()
        self.log = RunLog(self.output, self.accelerator)
        self.progress: dict[str, Any] = {
            "seconds": 0.0,
            "flops": 0,
            "best": None,
            "recipe": recipe.to_dict(),
            "training_data": data.fingerprint,
            "operators": own_code(model.config.block_operators),
            "train_steps": recipe.optimisation.train_steps,
            "plan": None,
            "ended_early": None,  # how many steps it would have taken
            "compared_on": self._compared_on(),
            "slots_begun": [recipe.optimisation.start_step],
            "processes": [
                [recipe.optimisation.start_step, self.accelerator.num_processes]
            ],  # after which step, how many
        }
        self.stopping = Stopping(self.accelerator, recipe.run, self.started)

    def train(self) -> int:
        """Train to the end, or to a stop that was asked for. Returns the last step taken."""
        step = self._resume()
        with self._algorithms():
            self._set_length()
        before, resumed = self.progress["seconds"], time.perf_counter()
        tallies: list[dict[str, Tensor]] = []
        with self._progress_bar(step) as bar, self.stopping.signals(), self._algorithms():
            while step < self.train_steps and not self.stopping.asked(step):
                step += 1
                tallies.append(self.step(step))
                self.progress["flops"] += self.step_flops(self.step.cycles(step))
                self.progress["seconds"] = before + time.perf_counter() - resumed
                self._advance(bar, step)
                if self._due(step)["eval"] and self.data.validation is not None:
                    self._evaluate(step)
                    self._end_where_it_stands_still(step)
                due = self._due(step)
                # A checkpoint is always logged before, so that a line never spans what a resumed run has not seen.
                if due["log"] or due["checkpoint"]:
                    self._log(step, tallies, bar)
                    tallies = []
                if due["checkpoint"]:
                    self._checkpoint(step)
            if step < self.train_steps:
                if tallies:
                    self._log(step, tallies, bar)
                self._checkpoint(step)
        self.step.close()
        if step == self.train_steps:
            self._save_final_weights()
        return step

    def _due(self, step: int) -> dict[str, bool]:
        run, last = self.recipe.run, step == self.train_steps
        every = {"log": run.log_every, "eval": run.eval_every, "checkpoint": run.checkpoint_every}
        return {name: last or step % steps == 0 for name, steps in every.items()}

    @property
    def published_weights(self) -> Path:
        """The folder of the weights to publish: the best on validation puzzles; without any, the averaged ones."""
        return self.output / "weights" / ("ema" if self.data.validation is None else "best")

    @property
    def train_steps(self) -> int:
        """Optimiser steps of the whole run, those that the recipe's minutes hold included; known once it trains."""
        return self.step.train_steps

    @property
    def facts(self) -> dict[str, Any]:
        """{name: text} for the card: the plan, and where the run was not one unbroken whole."""
        begun, start = self.progress["slots_begun"], self.recipe.optimisation.start_from
        facts = {} if self.progress["plan"] is None else {"plan": self.progress["plan"]}
        if begun[0]:
            facts["begun"] = f"after step {begun[0]:,} with the weights of {start}; optimisers and slots were new"
        if self.progress["ended_early"] is not None:
            facts["ended early"] = f"of {self.progress['ended_early']:,} planned steps; validation no longer improved"
        if len(begun) > 1:
            steps = ", ".join(f"{step:,}" for step in begun[1:])
            facts["resumed"] = f"after step {steps} from a travelling checkpoint, rounded; slots were new"
        (_, first), *others = self.progress["processes"]
        if others:
            changes = "".join(f", {count} after step {step:,}" for step, count in others)
            facts["processes"] = f"{first}{changes}: the same puzzles in the same order, within rounding"
        return facts

    def close(self) -> None:
        """End trackers and process group; the last thing a run does."""
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()

    # Preparation

    def _accelerator(self, trackers: list[str]) -> Accelerator:
        run = self.recipe.run
        on_gpu = torch.cuda.is_available() and not run.cpu
        precision = run.mixed_precision
        if precision == "auto":
            precision = "bf16" if computes_in_bf16("cuda" if on_gpu else "cpu") else "no"
        return Accelerator(
            cpu=run.cpu,
            mixed_precision=precision,
            log_with=trackers or None,
            project_config=ProjectConfiguration(
                project_dir=str(self.output), logging_dir=str(self.output / "trackers")
            ),
            # H_init and L_init never change, so they need not be sent at every step.
            kwargs_handlers=[
                DistributedDataParallelKwargs(broadcast_buffers=False),
                InitProcessGroupKwargs(timeout=LONGEST_WAIT),
            ],
        )

    def _training_step(self) -> TrainingStep:
        o, accelerator, model = self.recipe.optimisation, self.accelerator, self.model
        if o.train_only == "puzzle_table" and accelerator.num_processes > 1:
            raise ValueError("train_only='puzzle_table' runs in one process: there is nothing to average between them")
        optimisers = build_optimisers(model, o)
        ema = ExponentialMovingAverage(core_parameters(model), o.ema_decay)
        if self._compiles():  # the stack alone: one small graph, not the unrolled recursion; for each size its own
            allow_forms()
            model.model.stack.compile(dynamic=False if self.data.others else None)
        # The table's sparse gradient is averaged in TrainingStep.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, [TABLE])
        with warnings.catch_warnings():  # its successor is not known to every version of PyTorch that is supported
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            wrapped, *optimisers = accelerator.prepare(model, *optimisers)
        buckets = open_buckets(accelerator, model, self.data, self._reveal)
        steps = o.train_steps or 0
        return TrainingStep(o, accelerator, model, wrapped, optimisers, ema, buckets, steps)

    def _reveal(self, step: int) -> float:
        """The curriculum: up to which share of its blanks a row of this step is filled in."""
        data, end = self.recipe.data, self.recipe.data.reveal_until * self.train_steps
        return reveal_share(step, start=data.reveal_start, end=data.reveal_end, until=end)

    def _resume(self) -> int:
        """Restore the newest checkpoint and return its step; without any, the step behind which the recipe begins."""
        say = self.accelerator.print
        found = load_newest(self.accelerator, self.output / "checkpoints", self.packed)
        if found is None:
            step = self.recipe.optimisation.start_step
            if step:
                say(f"begun after step {step:,}: the weights are given, optimisers and slots are new")
        else:
            checkpoint, state = found
            progress = load_progress(checkpoint)
            check_same_run(checkpoint, progress, self.progress)
            self.step.load_state_dict(state)
            ours, step = self.progress["recipe"], progress["step"]
            compared_on = self.progress["compared_on"]
            # A checkpoint of an earlier version does not say on what it was compared: its best stays.
            self.progress = {name: progress.get(name, now) for name, now in self.progress.items()} | {"recipe": ours}
            if step < progress["train_steps"] and self.progress["compared_on"] != compared_on:
                self.progress |= {"best": None, "compared_on": compared_on}
                say("the validation is another one than before: the best weights are chosen anew from here")
            if self.progress["processes"][-1][1] != self.accelerator.num_processes:
                self.progress["processes"] = [*self.progress["processes"], [step, self.accelerator.num_processes]]
            if "slots" not in state:
                self.progress["slots_begun"] = [*progress["slots_begun"], step]
            say(f"resumed from {checkpoint}, after step {step:,}" + ("" if "slots" in state else "; slots are new"))
        self.step.slots_begun = self.progress["slots_begun"][-1]
        self.log.truncate(step)
        return step

    def _compared_on(self) -> str | None:
        """On what the validation accuracies are measured that choose the best weights."""
        if self.data.validation is None:
            return None
        sets = [one.validation.fingerprint for one in self.data.of_each_size if one.validation is not None]
        return f"{' '.join(sets)}, {self.recipe.run.eval_max_steps or 'all'} steps"

    def _set_length(self) -> int:
        """The run's number of steps; planned once, at its beginning, where the recipe says minutes."""
        o = self.recipe.optimisation
        if self.progress["train_steps"] is None:
            minutes = o.train_minutes
            assert minutes is not None  # the recipe has checked it
            costs = measure_costs(self.step, self.recipe, self.data, self.started)
            steps = costs.most_steps(minutes)
            plan = costs.describe(steps, minutes)
            if steps <= o.warmup_steps:
                raise ValueError(
                    f"train_minutes={minutes} holds {plan}, but warmup_steps={o.warmup_steps} and the descent behind "
                    f"it need more: give more minutes, fewer test_puzzles (task arc: views) or a larger eval_every"
                )
            self.progress |= {"train_steps": steps, "plan": plan}
            self.accelerator.print(f"planned {plan}")
        self.step.train_steps = self.progress["train_steps"]
        return self.train_steps

    # During the run

    def _log(self, step: int, tallies: list[dict[str, Tensor]], bar: tqdm) -> None:
        """One line of the log; the only place of the loop that waits for the device."""
        names = list(tallies[0])
        sums = torch.stack([torch.stack([t[name].float() for name in names]) for t in tallies]).sum(0)
        t = dict(zip(names, self.accelerator.reduce(sums, "sum").tolist()))
        o, seconds = self.recipe.optimisation, self.progress["seconds"]
        token_loss, halt_loss = t["token_loss"] / t["slots"], t["halt_loss"] / t["slots"]
        released = max(t["released"], 1.0)
        record = {
            "step": step,
            "loss": token_loss + o.halt_loss_weight * halt_loss,
            "token_loss": token_loss,
            "halt_loss": halt_loss,
            "exact_accuracy": t["released_exact"] / released,
            "cell_accuracy": t["cells_right"] / max(t["cells"], 1.0),
            "mean_steps": t["released_steps"] / released,
            "puzzles": t["released"],
            "lr": o.learning_rate * self.step.lr_factor(step),
            "seconds": seconds,
            "flops": self.progress["flops"],
        }
        if not np.isfinite(record["loss"]):
            raise FloatingPointError(
                f"the loss is {record['loss']} at step {step}: training has diverged; begin again with smaller "
                f"learning rates or clip_grad_norm in another output_dir. Checkpoints: {self.output / 'checkpoints'}"
            )
        self.log.write(record)
        bar.set_postfix(loss=f"{record['loss']:.3f}", exact=f"{record['exact_accuracy']:.1%}", refresh=False)

    def _evaluate(self, step: int) -> None:
        """Score the averaged weights on the validation puzzles; keep them if they are the best so far.

        With grids of several sizes the mean over the sizes says which are best.
        """
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            with self.step.ema.swapped_in():
                metrics = {
                    one.grid: self._score(one.validation)
                    for one in self.data.of_each_size
                    if one.validation is not None
                }
                names = ("exact_accuracy", "cell_accuracy")
                scores = {name: fmean(one[name] or 0.0 for one in metrics.values()) for name in names}
                best = self.progress["best"]
                # Cells decide between equals: few validation puzzles, or hard ones, leave all checkpoints at zero.
                if best is None or tuple(scores.values()) > tuple(best[name] for name in scores):
                    self.progress["best"] = {"step": step, **scores}
                    save_model(self.model, self.data.processor, self.output / "weights" / "best")
            for grid, one in metrics.items():
                low, high = one["exact_accuracy_ci95"]
                puzzles = f"{one['count']} validation puzzles" + (f" of {grid}" if self.data.others else "")
                tqdm.write(f"step {step}: {one['exact_accuracy']:.1%} of {puzzles} exact ({low:.1%} to {high:.1%})")
            cost = {name: self.progress[name] for name in ("seconds", "flops")}
            self.log.write({"step": step, **cost, "eval": metrics.pop(self.data.grid), "others": metrics})
        self.accelerator.wait_for_everyone()

    def _score(self, validation: Puzzles) -> dict[str, Any]:
        return evaluate_puzzles(
            self.model,
            validation,
            max_steps=self.recipe.run.eval_max_steps,
            batch_size=self.recipe.run.eval_batch_size,
            progress=False,
            engine="eager",  # what is trained: autocast and the compiled stack included
        )

    def _end_where_it_stands_still(self, step: int) -> None:
        """Make this step the run's last one if its validation no longer improves."""
        planned, best = self.train_steps, self.progress["best"]
        if step < planned and self.stopping.stands_still(step, best):
            self.progress |= {"train_steps": step, "ended_early": planned}
            self.step.train_steps = step
            if best is not None:  # the main process has it
                self.accelerator.print(f"ended early: nothing better since step {best['step']:,}, of {planned:,}")

    def _checkpoint(self, step: int) -> None:
        save_checkpoint(self.accelerator, self.output / "checkpoints", step, self.step.state_dict(), self.progress)

    def _save_final_weights(self) -> None:
        if self.accelerator.is_main_process:
            folder = self.output / "weights"
            save_model(self.model, self.data.processor, folder / "last")
            with self.step.ema.swapped_in():
                save_model(self.model, self.data.processor, folder / "ema")
        self.accelerator.wait_for_everyone()

    def _algorithms(self) -> AbstractContextManager[None]:
        return deterministic_algorithms() if self.recipe.run.deterministic else nullcontext()

    def _compiles(self) -> bool:
        run = self.recipe.run
        return run.compile == "yes" or (run.compile == "auto" and can_compile(self.accelerator.device))

    def _progress_bar(self, step: int) -> tqdm:
        disable = not self.accelerator.is_main_process
        doing = "compiling, about 40 s" if self._compiles() else TRAINING
        return tqdm(total=self.train_steps, initial=step, desc=doing, unit="step", smoothing=0.05, disable=disable)

    @staticmethod
    def _advance(bar: tqdm, step: int) -> None:
        """One step more. The first one compiles, so that the time left is reckoned from its end."""
        if bar.disable or bar.desc.startswith(TRAINING):
            bar.update()
            return
        bar.initial = bar.n = bar.last_print_n = step
        bar.start_t = bar.last_print_t = time.time()
        bar.set_description(TRAINING)
