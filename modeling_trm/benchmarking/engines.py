"""The ways a model's inference is run, by name, so that they can be measured side by side."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor

from ..engines_trm import ENGINES as OWN_ENGINES
from ..modeling_trm import TRMForGridReasoning
from ..reasoning_trm import SolveOutput
from .measure import Skipped
from .settings import Settings

Solve = Callable[..., SolveOutput]  # model.solve or what stands in for it


class Engine(NamedTuple):
    """prepare(model, settings, dtype): what is called like model.solve, the model itself unchanged.

    missing(model, settings, dtype): why it cannot run there, None if it can.
    """

    prepare: Callable[[TRMForGridReasoning, Settings, str], Solve]
    missing: Callable[[TRMForGridReasoning, Settings, str], str | None]


def own_engine(name: str) -> Engine:
    """One of modeling_trm's, which `solve` takes by name."""

    def prepare(model: TRMForGridReasoning, settings: Settings, dtype: str) -> Solve:
        def solve(input_ids_BL: Tensor, **options: Any) -> SolveOutput:
            with settings.precision(dtype):
                return model.solve(input_ids_BL, engine=name, **options)

        return solve

    def missing(model: TRMForGridReasoning, settings: Settings, dtype: str) -> str | None:
        with settings.precision(dtype):
            return OWN_ENGINES[name].missing(model)

    return Engine(prepare, missing)


def int8_missing(model: TRMForGridReasoning, settings: Settings, dtype: str) -> str | None:
    reason = own_engine("int8").missing(model, settings, dtype)
    return reason or (None if dtype == "bfloat16" else "rounds more than bfloat16, and is timed beside it alone")


# "bfloat16", which modeling_trm has too, is "packed" under autocast.
ENGINES = {
    "eager": own_engine("eager"),
    "packed": own_engine("packed"),
    "int8": Engine(own_engine("int8").prepare, int8_missing),
    "compiled": own_engine("compiled"),
}


def prepared(
    model: TRMForGridReasoning, settings: Settings, skipped: list[Skipped]
) -> Iterator[tuple[str, str, Solve]]:
    """(dtype, engine, solve) of everything that the settings name and that can run; the rest goes to `skipped`."""
    for dtype in settings.dtypes:
        for name in settings.engines:
            reason = ENGINES[name].missing(model, settings, dtype)
            if reason is None:
                yield dtype, name, ENGINES[name].prepare(model, settings, dtype)
            else:
                skipped.append(Skipped(f"engine {name}, {dtype}", reason))
