"""Initialisation, loading and saving of the models: strict where transformers fills gaps, the puzzle table apart."""

import copy
import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import CONFIG_NAME, cached_file

from .configuration_trm import TRMConfig
from .kernels_trm import KernelsMixin
from .layers_trm import Operator, truncated_normal_
from .operator_files_trm import check_operators, write_operators
from .operators_trm import OPERATORS
from .puzzle_table_trm import PuzzleTable, PuzzleTableMixin, table_file_name
from .reasoning_config_trm import REASONING_FILE, ReasoningConfig
from .text_file_trm import decode, parse_json

# Where a checkpoint is, as from_pretrained takes it for configuration, core and table alike.
DOWNLOAD = ("cache_dir", "force_download", "proxies", "local_files_only", "token", "revision", "subfolder")
WRITTEN_BEFORE = ("puzzle_table.", "reasoning_config.")  # before transformers looks what is new in a folder
ADAPTER = "adapter_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


class TRMPreTrainedModel(KernelsMixin, PuzzleTableMixin, PreTrainedModel):
    """Initialisation, loading and saving shared by the models of the family."""

    config_class = TRMConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _no_split_modules = ["Stack"]
    supports_gradient_checkpointing = True
    reasoning_config = ReasoningConfig()  # what `solve` begins with; a checkpoint's own takes the place of the class's
    # The table has a file of its own; model.safetensors is the core alone.
    _keys_to_ignore_on_save = ["model.puzzle_emb.weight", "puzzle_emb.weight"]
    _keys_to_ignore_on_load_missing = [r"^(model\.)?puzzle_emb\.weight$"]

    def __init__(self, config: TRMConfig) -> None:
        config.validate_architecture()  # overrides passed to from_pretrained skip the config's own validation
        super().__init__(config)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: Any,
        *args: Any,
        puzzle_tasks: Iterable[str] | None = None,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """As transformers', but a checkpoint of another architecture is an error; transformers fills gaps at random.

        Args:
            puzzle_tasks: None reads the whole puzzle table; names read the blank row and the rows of these tasks
                alone; an empty list reads the core alone and leaves one blank row of zeros. config.num_puzzles of the
                model is the number of rows it has.

        Raises:
            ValueError: naming the weights that are missing, unknown to this config, NaN or infinite, or of another size
                (`ignore_mismatched_sizes=True` allows the last, in the core); or what is wrong with the table's file.
        """
        if pretrained_model_name_or_path is None:  # a state_dict, which holds the table as well
            model, info = cls._load_strictly(None, *args, **kwargs)
        else:
            download = {name: kwargs[name] for name in DOWNLOAD if name in kwargs}
            refuse_adapter(pretrained_model_name_or_path, **download)
            config, kwargs = cls._split_config(pretrained_model_name_or_path, kwargs)
            config.validate_architecture()
            rows, config.num_puzzles = config.num_puzzles, 1  # so that the table is allocated once, by what is read
            check_operators(pretrained_model_name_or_path, config.block_operators, download)
            _check_shards(pretrained_model_name_or_path, download)
            model, info = cls._load_strictly(pretrained_model_name_or_path, *args, config=config, **kwargs)
            _check_kinds(pretrained_model_name_or_path, model, download)
            model.load_table(pretrained_model_name_or_path, rows, puzzle_tasks, kwargs.get("variant"), download)
            model.reasoning_config = find_reasoning_config(pretrained_model_name_or_path, **download)
        return (model, info) if output_loading_info else model

    @classmethod
    def _split_config(cls, name: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The checkpoint's configuration with the overrides among `kwargs`, and the other `kwargs`."""
        kwargs = dict(kwargs)
        config = kwargs.pop("config", None)
        if isinstance(config, PreTrainedConfig):
            return copy.deepcopy(config), kwargs
        # dtype is a field too, but transformers must see whether it was given.
        fields = {field.name for field in dataclasses.fields(cls.config_class)} - {"dtype"}
        overrides = {key: kwargs.pop(key) for key in fields & kwargs.keys()}
        download = {key: kwargs[key] for key in DOWNLOAD if key in kwargs}
        return cls.config_class.from_pretrained(config or name, **download, **overrides), kwargs

    @classmethod
    def _load_strictly(cls, *args: Any, ignore_mismatched_sizes: bool = False, **kwargs: Any) -> tuple[Any, Any]:
        """transformers' from_pretrained, which knows nothing of the table's file, and its loading info."""
        kwargs.setdefault("use_safetensors", True)  # a pickle is never opened unless it is asked for
        options = {"output_loading_info": True, "ignore_mismatched_sizes": True, **kwargs}
        try:
            loaded: Any = super().from_pretrained(*args, **options)
        except (SafetensorError, KeyError, json.JSONDecodeError) as error:  # the last two: the index of the shards
            raise ValueError(f"the weights of {args[0]} cannot be read ({_damaged(args[0])}): {error}") from error
        except OSError as error:
            pickles = _pickles(args[0])
            if not pickles:
                raise
            raise OSError(f"{error} It has {pickles}: pickles can hold code and are not opened.") from error
        model, info = loaded
        problems = {"missing": sorted(info["missing_keys"]), "unknown to this config": sorted(info["unexpected_keys"])}
        if not ignore_mismatched_sizes:
            sizes = sorted(info["mismatched_keys"])
            problems["of another size"] = [f"{key} {list(saved)} instead of {list(own)}" for key, saved, own in sizes]
        found = [f"{len(keys)} weights {what} ({_first(keys)})" for what, keys in problems.items() if keys]
        if found:
            old = any("puzzle_emb" in text for text in found)
            raise ValueError(
                f"the checkpoint does not fit block_operators={model.config.block_operators}, "
                f"hidden_size={model.config.hidden_size}, num_latents={model.config.num_latents}: {'; '.join(found)}"
                + (f". The puzzle table belongs into {table_file_name(None)}" if old else "")
            )
        state = {key: value for key, value in model.state_dict().items() if not value.is_meta}
        broken = sorted(key for key, value in state.items() if not value.isfinite().all())
        if broken:
            raise ValueError(f"the checkpoint has NaN or infinite values in {len(broken)} weights ({_first(broken)})")
        return model, info

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any) -> Any:
        """As transformers'. Raises ValueError for symbol fields, where the embedding holds roles and no vocabulary."""
        if self.config.symbol_fields and (new_num_tokens is not None or args or kwargs):
            raise ValueError(
                f"resize_token_embeddings({new_num_tokens}): with symbol_fields=True the embedding holds what a cell "
                f"is to a field, not the vocabulary; the weights are those of any number of symbols: build the model "
                f"with another vocab_size and seq_len and load this one's state_dict"
            )
        return super().resize_token_embeddings(new_num_tokens, *args, **kwargs)

    def save_pretrained(self, save_directory: Any, is_main_process: bool = True, **kwargs: Any) -> None:  # type: ignore[override]
        """As transformers', with the puzzle table, `solve`'s defaults and a user's own operators in their files."""
        if is_main_process:
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            self.save_table(save_directory, **kwargs)  # first, so that no core is ever without its table
            self.reasoning_config.save_pretrained(save_directory)
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            self._write_operators(save_directory)

    def _write_operators(self, folder: Any) -> None:
        write_operators({name: OPERATORS[name] for name in dict.fromkeys(self.config.block_operators)}, folder)

    def _upload_modified_files(self, working_dir: Any, *args: Any, **kwargs: Any) -> Any:
        """A user's own operators go to the Hub as well, over the package's list of none that transformers copies."""
        self._write_operators(working_dir)
        return super()._upload_modified_files(working_dir, *args, **kwargs)

    def _get_files_timestamps(self, working_dir: Any) -> dict[str, float]:
        """transformers uploads what is newer than this; what was written just before always goes along."""
        stamps = super()._get_files_timestamps(working_dir)
        return {name: stamp for name, stamp in stamps.items() if not name.startswith(WRITTEN_BEFORE)}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Truncated LeCun normal everywhere (public code, models/common.py); operators fill what is their own."""
        if isinstance(module, nn.Linear):
            truncated_normal_(module.weight, module.in_features**-0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, PuzzleTable):
            init.zeros_(module.weight)
        elif isinstance(module, nn.Embedding):
            truncated_normal_(module.weight, module.embedding_dim**-0.5)
        elif isinstance(module, nn.Conv1d):  # depthwise, as PyTorch's own initialisation
            bound = module.kernel_size[0] ** -0.5
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, Operator | TRMPreTrainedModel):
            module.init_parameters()

    def init_parameters(self) -> None:
        """What a model holds itself, outside of its layers; most hold nothing."""


def find_reasoning_config(folder_or_hub_id: str, **download: Any) -> ReasoningConfig:
    """The checkpoint's own, the class's defaults where it has none. Raises ValueError naming what is wrong with it."""
    path = cached_file(folder_or_hub_id, REASONING_FILE, _raise_exceptions_for_missing_entries=False, **download)
    return ReasoningConfig() if path is None else ReasoningConfig.from_file(path)


def refuse_adapter(name: Any, **download: Any) -> None:
    """Raise ValueError where there is an adapter (peft) and no model: transformers would load another one."""
    options = download | {"_raise_exceptions_for_missing_entries": False}
    if cached_file(name, CONFIG_NAME, **options) is None and cached_file(name, ADAPTER, **options) is not None:
        raise ValueError(
            f"{name} is an adapter of peft, not a model; load the model that it was trained on, and PeftModel."
            f"from_pretrained(model, {str(name)!r}).merge_and_unload() gives a model to use and to save"
        )


def _check_kinds(name: Any, model: nn.Module, download: dict[str, Any]) -> None:
    """Raise ValueError for weights of another kind than the model's: whole numbers cast to floats are often zeros."""
    path = cached_file(name, WEIGHTS, _raise_exceptions_for_missing_entries=False, **download)
    if path is None:  # in shards
        return
    with safe_open(path, framework="pt") as file:
        kinds = {key: _kind(file.get_slice(key).get_dtype()) for key in file.keys()}  # noqa: SIM118 (not a dict)
    own = {key: _kind(str(value.dtype).removeprefix("torch.")) for key, value in model.state_dict().items()}
    other = [f"{key}: {kind} for {own[key]}" for key, kind in sorted(kinds.items()) if kind != own.get(key, kind)]
    if other:
        raise ValueError(f"{path}: {len(other)} weights are of another kind than the model's ({_first(other)})")


def _kind(dtype: str) -> str:
    """What values a type holds that safetensors (F32) or PyTorch (float32) calls so."""
    if dtype.upper() == "BOOL":
        return "true or false"
    return {"I": "whole numbers", "U": "whole numbers", "C": "complex numbers"}.get(
        dtype[0].upper(), "floating-point numbers"
    )


def _check_shards(name: Any, download: dict[str, Any]) -> None:
    """Raise ValueError for an index of shards that names anything but safetensors files beside it.

    transformers would open what it names: a pickle, or a file anywhere on this machine.
    """
    options = download | {"_raise_exceptions_for_missing_entries": False}
    if cached_file(name, WEIGHTS, **options) is not None:
        return
    index = cached_file(name, INDEX, **options)
    if index is None:
        return  # transformers tells what is missing
    try:
        content = parse_json(decode(Path(index).read_bytes()))
    except ValueError as error:
        raise ValueError(f"{index}: is no JSON, or cut short: {error}") from error
    files = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict):
        raise ValueError(f"{index}: has no weight_map, which says in what file each weight is")
    for weight, file in files.items():
        if not (isinstance(file, str) and re.fullmatch(r"[\w.-]+\.safetensors", file)):
            raise ValueError(f"{index}: {weight} is said to be in {file!r}; allowed: a safetensors file beside it")


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if keys[3:] else "")


def _damaged(name: Any) -> str:
    """The weight files of a local folder that are no whole safetensors files, with their sizes."""
    damaged = []
    for path in sorted(Path(str(name)).glob("model*.safetensors")):
        try:
            safe_open(path, framework="pt")
        except SafetensorError:
            damaged.append(f"{path.name}, {path.stat().st_size:,} bytes, is damaged or no safetensors file")
    return _first(damaged) or "the weights' files or their index"


def _pickles(name: Any) -> str:
    """The files of a local folder in which the weights may be, but which are not opened; "" without any."""
    return _first(sorted(path.name for path in Path(str(name)).glob("*") if path.suffix in PICKLES))
