"""What users put on or around layers: LoRA and its like, hooks, parametrized weights, a forward of their own.

An engine that reads bare weights would pass all of it over, in silence.
"""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import register_parametrization

from modeling_trm import OPERATORS, TRMForGridReasoning
from modeling_trm.engines_trm import ENGINES, choose_engine


class Doubled(torch.nn.Linear):
    """As LoRA's layers: more than the product of its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def _replace(model: TRMForGridReasoning) -> None:
    layer = model.model.stack[1].down_proj
    layer.__class__ = Doubled


def _hook(name: str) -> Callable[[TRMForGridReasoning], None]:
    return lambda model: model.get_submodule(name).register_forward_hook(lambda module, inputs, out: 2 * out)


def _reforward(model: TRMForGridReasoning) -> None:
    operator = model.model.stack[0]
    operator.forward = lambda x, *tables, forward=operator.forward: 2 * forward(x, *tables)


def _negate(model: TRMForGridReasoning) -> None:
    class Negated(torch.nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return -weight

    register_parametrization(model.model.stack[0].o_proj, "weight", Negated())


def _subclassed(model: TRMForGridReasoning) -> None:
    class Quantised(Tensor):
        """A weight in another form, as torchao's."""

    model.model.stack[0].o_proj.weight = torch.nn.Parameter(-torch.randn(32, 32).as_subclass(Quantised))


CHANGES = {
    "a layer of another class": (_replace, r"stack\.1\.down_proj was made as torch.*Linear and is .*Doubled now"),
    "a hook on a layer": (_hook("model.stack.1.down_proj"), r"model\.model\.stack\.1\.down_proj has hooks"),
    "a hook on an operator": (_hook("model.stack.0"), r"model\.model\.stack\.0 has hooks"),
    "a hook on the stack": (_hook("model.stack"), r"model\.model\.stack has hooks"),
    "a forward of its own": (_reforward, r"model\.model\.stack\.0\.forward was replaced"),
    "a parametrized weight": (_negate, r"stack\.0\.o_proj was made as"),
    "a weight of a class of its own": (_subclassed, r"weights of model\.model\.stack\.0\.o_proj are held as Quantised"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_put_on_or_around_a_layer_is_not_passed_over(change: str, make, problem, monkeypatch) -> None:
    model, said = make("trm-attn"), []
    if ENGINES["packed"].missing(model) is not None:
        pytest.skip(ENGINES["packed"].missing(model))
    monkeypatch.setattr("modeling_trm.engines_trm.logger.warning_once", said.append)
    plain = model.solve(*problem, max_steps=2).halt_probability
    apply, reason = CHANGES[change]
    apply(model)
    changed = model.solve(*problem, max_steps=2, engine="eager").halt_probability
    assert not torch.allclose(plain, changed, atol=1e-4) and said == []
    assert torch.equal(model.solve(*problem, max_steps=2).halt_probability, changed)
    assert len(said) == 1 and re.search(rf"engine='auto' takes 'eager', the model itself: .*{reason}", said[0])
    for engine in ("packed", "bfloat16", "int8", *(["compiled"] if "hook" in change else [])):
        with pytest.raises(
            ValueError, match=rf"engine='{engine}' cannot run here: .*{reason}.*allowed everywhere: auto"
        ):
            choose_engine(model, engine)


def test_a_layer_that_is_plain_again_is_packed_again(make) -> None:
    model = make("trm-attn")
    handle = model.model.stack.register_forward_hook(lambda module, inputs, out: out)
    assert choose_engine(model, "auto") is model
    handle.remove()
    assert ENGINES["packed"].missing(model) is not None or choose_engine(model, "auto") is not model


@pytest.mark.parametrize("layer", ["weight norm", "transformer", "reads a weight"])
def test_layers_of_all_kinds_in_an_operator_of_a_users_own(layer: str, make, problem, monkeypatch) -> None:
    class Own(torch.nn.Module):
        def __init__(self, config: Any) -> None:
            super().__init__()
            D = config.hidden_size
            self.layer = {
                "weight norm": lambda: weight_norm(torch.nn.Linear(D, D)),
                "transformer": lambda: torch.nn.TransformerEncoderLayer(D, 4, D, dropout=0.0, batch_first=True),
                "reads a weight": lambda: torch.nn.Linear(D, D),
            }[layer]()

        def forward(self, x_BLD: Tensor) -> Tensor:
            bare = self.layer.weight if layer == "reads a weight" else torch.eye(x_BLD.shape[-1], dtype=x_BLD.dtype)
            return self.layer(x_BLD) @ bare.T

    monkeypatch.setitem(OPERATORS, "own", Own)
    model = make("trm-attn", block_operators=["own", "mlp"])
    expected = model.solve(*problem, max_steps=2, engine="eager").halt_probability
    torch.testing.assert_close(model.solve(*problem, max_steps=2).halt_probability, expected)
    reason = ENGINES["packed"].missing(model)
    if layer == "weight norm":
        assert reason is not None and "the weights of model.model.stack.0.layer are parametrized" in reason
    else:
        assert reason == ENGINES["packed"].missing(make("trm-attn"))
