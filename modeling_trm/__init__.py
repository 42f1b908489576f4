"""Tiny recursive models with swappable operators, at home in the Hugging Face ecosystem.

`import modeling_trm` imports neither PyTorch nor transformers: a name is imported when it is first asked for (PEP 562),
and the Auto classes learn of ours as soon as there are any to tell, see `_Registration`.
"""

import importlib
import sys
import threading
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_trm import PRESETS, TRMConfig
    from .modeling_trm import TRMForGridReasoning, TRMModel, TRMOutput
    from .operators_trm import OPERATORS
    from .pipeline_trm import GridReasoningPipeline
    from .pretrained_trm import TRMPreTrainedModel
    from .processing_trm import GridProcessor
    from .reasoning_config_trm import ReasoningConfig
    from .reasoning_trm import SolveOutput, TraceStep
    from .recursion_trm import RecursionState

__version__ = "0.1.0"

__all__ = [
    "OPERATORS",
    "PRESETS",
    "GridProcessor",
    "GridReasoningPipeline",
    "ReasoningConfig",
    "RecursionState",
    "SolveOutput",
    "TRMConfig",
    "TRMForGridReasoning",
    "TRMModel",
    "TRMOutput",
    "TRMPreTrainedModel",
    "TraceStep",
]

_FILES = {
    "configuration_trm": ("PRESETS", "TRMConfig"),
    "modeling_trm": ("TRMForGridReasoning", "TRMModel", "TRMOutput"),
    "operators_trm": ("OPERATORS",),
    "pipeline_trm": ("GridReasoningPipeline",),
    "pretrained_trm": ("TRMPreTrainedModel",),
    "processing_trm": ("GridProcessor",),
    "reasoning_trm": ("SolveOutput", "TraceStep"),
    "recursion_trm": ("RecursionState",),
}
_FILE_OF = {name: file for file, names in _FILES.items() for name in names}
_FILE_OF["ReasoningConfig"] = "reasoning_config_trm"  # imports nothing heavy: no reason to register


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_FILE_OF[name]}", __name__), name)
    _register()
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register() -> None:
    """Tell transformers of our classes, once."""
    if _registration not in sys.meta_path:
        return
    sys.meta_path.remove(_registration)
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor
    from transformers.pipelines import PIPELINE_REGISTRY

    from .configuration_trm import TRMConfig
    from .modeling_trm import TRMForGridReasoning
    from .pipeline_trm import GridReasoningPipeline
    from .processing_trm import GridProcessor

    AutoConfig.register(TRMConfig.model_type, TRMConfig)
    AutoModel.register(TRMConfig, TRMForGridReasoning)
    AutoFeatureExtractor.register(TRMConfig, GridProcessor)
    AutoProcessor.register(TRMConfig, GridProcessor)
    PIPELINE_REGISTRY.register_pipeline("grid-reasoning", pipeline_class=GridReasoningPipeline, pt_model=AutoModel)
    # What a config names is remote code to transformers, which it asks the user to trust.
    TRMConfig.pipelines_of_remote_code = {}
    # What save_pretrained copies beside the weights, so that the Hub loads a checkpoint with trust_remote_code.
    TRMConfig.register_for_auto_class("AutoConfig")
    TRMForGridReasoning.register_for_auto_class("AutoModel")
    GridProcessor.register_for_auto_class("AutoFeatureExtractor")


class _Registration(MetaPathFinder):
    """Registers our classes after the import, by whomever, that makes it possible and necessary.

    That is the end of an outermost import, of transformers' modules or ours, which left the Auto classes or one of our
    own behind; before, a module that registering needs may be half imported. It finds no modules of its own.
    """

    def __init__(self) -> None:
        self.depth = threading.local()

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        top, _, inner = name.partition(".")
        if top not in ("transformers", __name__) or not inner:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            self.depth.value = getattr(self.depth, "value", 0) + 1
            try:
                execute(module)
            finally:
                self.depth.value -= 1
            if self.depth.value == 0 and self.is_due():
                _register()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    @staticmethod
    def is_due() -> bool:
        ours = any(f"{__name__}.{file}" in sys.modules for file in _FILES)
        return ours or "transformers.models.auto.configuration_auto" in sys.modules


_registration = _Registration()
sys.meta_path.insert(0, _registration)
if _Registration.is_due():  # the Auto classes were imported before
    _register()
