"""What optimisers have gathered (moments, momentum, counts), by the name of the parameter instead of its position.

torch numbers the parameters of an optimiser in the order in which it was given them, so that a saved state fits only
the same code; a name says what a tensor belongs to, whatever the order and however the parameters are shared out.
"""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torch.optim import Optimizer


def optimiser_state(model: nn.Module, optimisers: Iterable[Optimizer]) -> dict[str, Tensor]:
    """{"parameter/entry": tensor} of all optimisers, for example "lm_head.weight/exp_avg"; empty before a first step.

    The tensors are the optimisers' own. Rates and the other settings of the groups are the recipe's, not state.
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}/{entry}": value
        for optimiser in optimisers
        for parameter, state in optimiser.state.items()
        for entry, value in state.items()
    }


def load_optimiser_state(model: nn.Module, optimisers: Iterable[Optimizer], saved: Mapping[str, Tensor]) -> None:
    """Give every optimiser the saved state of its parameters, and nothing else: what is not saved begins anew.

    Raises:
        ValueError: a tensor of a parameter that no optimiser has, or of another shape, naming it.
    """
    optimisers, names = list(optimisers), {parameter: name for name, parameter in model.named_parameters()}
    states: dict[str, dict[str, Tensor]] = {}
    for key, value in saved.items():
        name, _, entry = key.rpartition("/")
        states.setdefault(name, {})[entry] = value
    ours = {names[p]: p for optimiser in optimisers for p in _parameters(optimiser)}
    for name, state in states.items():
        _check(name, state, ours)
    for optimiser in optimisers:
        numbered = enumerate(names[parameter] for parameter in _parameters(optimiser))
        present = {number: states[name] for number, name in numbered if name in states}
        optimiser.load_state_dict({"state": present, "param_groups": optimiser.state_dict()["param_groups"]})


def _parameters(optimiser: Optimizer) -> list[nn.Parameter]:
    """In the order in which torch numbers them."""
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _check(name: str, state: dict[str, Tensor], ours: Mapping[str, nn.Parameter]) -> None:
    if name not in ours:
        raise ValueError(f"the saved optimiser state is of {name!r}, which no optimiser of this run trains")
    for entry, value in state.items():
        if value.ndim and value.shape != ours[name].shape:  # counts have no shape
            raise ValueError(
                f"the saved optimiser state {name}/{entry} has shape {list(value.shape)}, "
                f"the parameter {list(ours[name].shape)}"
            )
