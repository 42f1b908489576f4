"""Tiny recursive models with swappable operators, at home in the Hugging Face ecosystem."""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_trm import PRESETS, TRMConfig
from .modeling_trm import TRMForGridReasoning, TRMModel, TRMOutput
from .operators_trm import OPERATORS
from .pipeline_trm import GridReasoningPipeline
from .pretrained_trm import TRMPreTrainedModel
from .processing_trm import GridProcessor
from .reasoning_trm import SolveOutput, TraceStep
from .recursion_trm import RecursionState

__version__ = "0.1.0"

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

__all__ = [
    "OPERATORS",
    "PRESETS",
    "GridProcessor",
    "GridReasoningPipeline",
    "RecursionState",
    "SolveOutput",
    "TRMConfig",
    "TRMForGridReasoning",
    "TRMModel",
    "TRMOutput",
    "TRMPreTrainedModel",
    "TraceStep",
]
