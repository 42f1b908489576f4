"""Several trajectories of one puzzle: what makes them differ, and which of their answers is taken.

Sources: noise on a latent before each step, the best halt logit: arXiv 2605.19943 (PTRM); random initial states, the
smallest fixed-point residual: arXiv 2605.21488 (EqR); votes: the evaluator of arXiv 2510.04871.

Shapes: B puzzles, K trajectories of each, n of a batch, L cells, S positions, D hidden.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .losses_trm import wide
from .recursion_trm import RecursionState

# (input_ids [N, L], answers [N, L]) -> bool [N]: does the answer obey the rules of the puzzle?
Verifier = Callable[[Tensor, Tensor], Any]


class Trajectories(NamedTuple):
    """How every trajectory ended: answers [B, K, L]; halt_logits, residual and steps [B, K].

    residual: |z_H - z_H before the last step| / |z_H|, which is 0 at a fixed point of the recursion.
    """

    answers: Tensor
    halt_logits: Tensor
    residual: Tensor
    steps: Tensor

    def taken(self, choice_B: Tensor) -> "Trajectories":
        """The chosen trajectory of each puzzle: answers [B, L], the others [B]."""
        rows = torch.arange(len(choice_B), device=choice_B.device)
        return Trajectories(*(field[rows, choice_B] for field in self))


class Noise:
    """Normal noise for the latents of a batch of trajectories, each from a generator of its own.

    So a trajectory is the same one whatever others run beside it, and in whatever order they stop.

    Args:
        seeds: int64 [n], one for each trajectory.
    """

    def __init__(self, seeds: Tensor, device: torch.device) -> None:
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds.tolist()]

    def start(self, state: RecursionState, std: float) -> RecursionState:
        """Latents of pure noise, of the shape and type of `state` [n, S, D]."""
        every = torch.arange(len(self._generators))
        return state.map(lambda z: std * self._draw(z, every))

    def add(self, state: RecursionState, rows: Tensor, latent: str, std: float) -> RecursionState:
        """The state with noise on one latent. rows: int64, which trajectories of the batch are left in `state`."""
        z = state._asdict()[latent]
        return state.replaced(**{latent: z + std * self._draw(z, rows)})

    def _draw(self, like: Tensor, rows: Tensor) -> Tensor:
        shape, device = like.shape[1:], like.device
        drawn = [torch.randn(shape, generator=self._generators[row], device=device) for row in rows.tolist()]
        return torch.stack(drawn).to(like.dtype)


def select(trajectories: Trajectories, selection: str, input_ids: Tensor, verifier: Verifier | None) -> Tensor:
    """Which trajectory of each puzzle is taken, int64 [B]; of equals the first.

    Args:
        selection: "halt", the largest halt logit (a NaN is the smallest); "vote", the answer that most trajectories
            agree on, ties by the mean halt probability of their votes; "residual", the smallest; "valid", the largest
            halt logit among the answers that the verifier accepts, among all where it accepts none.
        input_ids: [B, L]. verifier: for "valid".
    """
    halt_BK = trajectories.halt_logits.float().nan_to_num(nan=float("-inf"))
    if selection == "residual":
        return trajectories.residual.nan_to_num(nan=float("inf")).argmin(1)
    if selection == "vote":
        return _most_votes(trajectories.answers, halt_BK.sigmoid())
    if selection == "valid":
        assert verifier is not None
        B, K, L = trajectories.answers.shape
        repeated = input_ids.repeat_interleave(K, dim=0)
        valid_BK = verdicts(verifier, repeated, trajectories.answers.reshape(B * K, L)).view(B, K)
        accepted = halt_BK.masked_fill(~valid_BK, float("-inf"))
        return torch.where(valid_BK.any(1), accepted.argmax(1), halt_BK.argmax(1))
    return halt_BK.argmax(1)


def verdicts(verifier: Verifier, input_ids: Tensor, answers: Tensor) -> Tensor:
    """What the verifier says of each answer, bool [N]; NumPy's and lists of bools are taken as well.

    Raises:
        TypeError: it says something else, or not of each answer.
    """
    given = verifier(input_ids, answers)
    try:
        said = torch.as_tensor(given, device=answers.device)
    except (TypeError, ValueError, RuntimeError):
        said = None
    if said is None or said.dtype != torch.bool or said.shape != (len(answers),):
        what = "" if said is None else f", {said.dtype} {list(said.shape)}"
        raise TypeError(
            f"the verifier returned {type(given).__name__}{what}; allowed: a tensor torch.bool [{len(answers)}], one "
            f"for each answer, from (input_ids [N, L], answers [N, L]), token ids of N puzzles at once"
        )
    return said


def _most_votes(answers_BKL: Tensor, probability_BK: Tensor) -> Tensor:
    """The first trajectory with the winning answer; votes count whole, the mean probability breaks ties."""
    same_BKK = (answers_BKL[:, :, None] == answers_BKL[:, None]).all(-1)
    votes_BK = same_BKK.sum(-1)
    mean_BK = (same_BKK * wide(probability_BK)[:, None]).sum(-1) / votes_BK
    leads_BK = votes_BK == votes_BK.amax(1, keepdim=True)
    return mean_BK.masked_fill(~leads_BK, -1).argmax(1)
