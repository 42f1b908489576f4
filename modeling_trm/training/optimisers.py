"""Optimisers of the recipes and how they divide a model's parameters.

Sources: AdamATan2 (arXiv 2407.05872, section 5) as the TRM reference runs it (package adam-atan2, used by pretrain.py
of SamsungSAILMontreal/TinyRecursiveModels); sign-SGD on the puzzle table (models/sparse_embedding.py there); Muon
(https://kellerjordan.github.io/posts/muon, muon.py).

A model's parameters fall into three sets, the same for every recipe:
  table     the puzzle table, whose gradient is sparse: sign-SGD, whatever the optimiser of the rest
  matrices  the two-dimensional weights of the operators in the stack: Muon, where the recipe asks for it
  others    embeddings, heads, biases, vectors and convolutions
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from ..modeling_trm import TRMForGridReasoning
from .muon import Muon
from .optimiser_basics import GroupOptimiser, require_non_negative

if TYPE_CHECKING:
    from .arguments import OptimisationArguments  # which asks here what optimisers there are


class AdamATan2(GroupOptimiser):
    """Adam with atan2 in place of the division, so without an epsilon; plain PyTorch, foreach.

        m <- b1 m + (1 - b1) g          v <- b2 v + (1 - b2) g^2
        w <- (1 - lr weight_decay) w - lr / (1 - b1^t) * atan2(m, sqrt(v / (1 - b2^t)))

    This is the arithmetic of the CUDA kernel behind the reference's adam-atan2: the first moment's bias correction
    stands outside the atan2, and there are no scales a and b. The package adam-atan2-pytorch corrects m inside, so that
    its first step is a * lr * pi/4 where this one is lr * 0.997 (b1 = 0.9); late in a run the two differ only by the
    factor a, which is 1.27 there unless it is set.

    Args:
        params: parameters or groups; dense gradients only.
        lr: learning rate; a step moves an entry by at most lr * pi/2 / (1 - b1^t).
        betas: decay rates of the two moments. weight_decay: decoupled, multiplied by lr.

    Raises:
        ValueError: a setting out of range, naming it.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.1,
    ) -> None:
        require_non_negative(lr=lr, weight_decay=weight_decay)
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas={betas} must both lie in [0, 1)")
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def _step_group(self, group: dict[str, Any]) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        grads: list[Tensor] = [p.grad for p in params]
        states = [self._state(p) for p in params]
        m, v = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
        lr, (beta1, beta2) = group["lr"], group["betas"]
        for state in states:
            state["step"] += 1
        steps = [state["step"].item() for state in states]  # on the CPU, so that reading it waits for no GPU

        torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        torch._foreach_lerp_(m, grads, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, grads, grads, 1 - beta2)
        scales = torch._foreach_sqrt(v)
        torch._foreach_div_(scales, [math.sqrt(1 - beta2**t) for t in steps])
        updates = [torch.atan2(m_p, scale, out=scale) for m_p, scale in zip(m, scales)]
        torch._foreach_mul_(updates, [-lr / (1 - beta1**t) for t in steps])
        torch._foreach_add_(params, updates)

    def _state(self, param: Tensor) -> dict[str, Tensor]:
        state = self.state[param]
        if not state:
            state["step"] = torch.zeros((), device="cpu")
            state["exp_avg"] = torch.zeros_like(param)
            state["exp_avg_sq"] = torch.zeros_like(param)
        return state


class SignSGD(GroupOptimiser):
    """Sign-SGD with decoupled weight decay on the rows of an `nn.Embedding(sparse=True)` that a batch has read.

        w[r] <- (1 - lr weight_decay) w[r] - lr sign(g[r])          for every row r of the batch, g[r] summed over it

    With gradients this sparse it is what Adam comes to (reference, models/sparse_embedding.py). A row of the batch
    whose gradient sums to zero still decays; rows that are not in the batch are untouched. Time and memory follow the
    batch, not the table. It has no state.

    Raises:
        ValueError: a negative lr or weight_decay, or a dense gradient at `step`.
    """

    def __init__(self, params: ParamsT, lr: float = 1e-4, weight_decay: float = 0.1) -> None:
        require_non_negative(lr=lr, weight_decay=weight_decay)
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def _step_group(self, group: dict[str, Any]) -> None:
        for table in group["params"]:
            if table.grad is not None:
                self._step_rows(table, table.grad, group["lr"], group["weight_decay"])

    @staticmethod
    def _step_rows(table_ND: Tensor, grad: Tensor, lr: float, weight_decay: float) -> None:
        if not grad.is_sparse:
            raise ValueError(
                "SignSGD needs the sparse gradient of nn.Embedding(sparse=True), but this one is dense: set "
                "model.model.puzzle_emb.sparse = True"
            )
        rows_B, grad_BD = grad._indices()[0], grad._values()
        rows_B, order_B = rows_B.sort()  # not stable, as in coalesce(): the order in which equal rows are summed
        # What several puzzles of the batch contribute to a row is summed as by coalesce(), but into as many places as
        # there are puzzles: how many rows there are is known to the device alone, and asking it would wait.
        place_B = torch.cat((rows_B.new_zeros(min(1, len(rows_B))), rows_B.diff().ne(0).cumsum(0)))
        grad_BD = torch.zeros_like(grad_BD).index_add_(0, place_B, grad_BD[order_B])[place_B]
        # A shared row is written as often as it is read, each time with the same value.
        updated_BD = table_ND[rows_B] * (1 - lr * weight_decay) - lr * grad_BD.sign()
        table_ND.index_copy_(0, rows_B, updated_BD)


Parameters = list[nn.Parameter]


def _adam_atan2(matrices: Parameters, others: Parameters, s: "OptimisationArguments") -> list[Optimizer]:
    # The reference decays every parameter of the core, biases and Mamba-2's A_log and dt_bias included.
    return [AdamATan2([*matrices, *others], s.learning_rate, (s.beta1, s.beta2), s.weight_decay)]


def _adamw(matrices: Parameters, others: Parameters, s: "OptimisationArguments") -> list[Optimizer]:
    weights, betas = [*matrices, *others], (s.beta1, s.beta2)
    return [torch.optim.AdamW(weights, lr=s.learning_rate, betas=betas, weight_decay=s.weight_decay)]


def _muon(matrices: Parameters, others: Parameters, s: "OptimisationArguments") -> list[Optimizer]:
    """Muon on the matrices, AdamW on the others (recipe of arXiv 2601.19085, there with momentum 0.6 and 3 steps).

    Fused matrices (qkv_proj, gate_up_proj, in_proj) are orthogonalised whole, as that recipe does for its gates; its
    maze runs split the attention projections by head.
    """
    muon = Muon(matrices, s.muon_lr, s.muon_weight_decay, s.muon_momentum, s.muon_ns_steps)
    return [muon, *_adamw([], others, s)]


OPTIMISERS: dict[str, Callable[[Parameters, Parameters, "OptimisationArguments"], list[Optimizer]]] = {
    "adam_atan2": _adam_atan2,
    "adamw": _adamw,
    "muon": _muon,
}


def core_parameters(model: TRMForGridReasoning) -> dict[str, nn.Parameter]:
    """Name -> parameter of everything but the puzzle table: what is clipped, averaged and given to the optimiser."""
    table = model.model.puzzle_emb
    return {name: p for name, p in model.named_parameters() if table is None or p is not table.weight}


def build_optimisers(model: TRMForGridReasoning, arguments: "OptimisationArguments") -> list[Optimizer]:
    """The optimisers of a recipe: those of OPTIMISERS[optimiser] for the core, then sign-SGD for the puzzle table.

    With train_only "puzzle_table" the core has none, and a model without a table has no sign-SGD; one with a table has
    sparse gradients of it from here on.

    Raises:
        ValueError: an unknown optimiser, naming the known ones, a setting out of range, or no puzzle table to train.
    """
    if arguments.optimiser not in OPTIMISERS:
        raise ValueError(f"optimiser={arguments.optimiser!r} is unknown; allowed: {', '.join(OPTIMISERS)}")
    core = core_parameters(model)
    matrix_names = {f"model.stack.{name}" for name, p in model.model.stack.named_parameters() if p.ndim == 2}
    matrices = [p for name, p in core.items() if name in matrix_names]
    others = [p for name, p in core.items() if name not in matrix_names]
    optimisers = OPTIMISERS[arguments.optimiser](matrices, others, arguments) if arguments.train_only == "all" else []
    if model.model.puzzle_emb is not None:
        model.model.puzzle_emb.sparse = True
        table = [model.model.puzzle_emb.weight]
        optimisers.append(SignSGD(table, arguments.puzzle_lr, arguments.puzzle_weight_decay))
    if not optimisers:
        only = arguments.train_only
        raise ValueError(f"train_only={only!r}, but the model has no puzzle table (puzzle_prefix_len=0)")
    return optimisers
