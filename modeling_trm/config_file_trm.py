"""Which keys a configuration takes: its constructor refuses what it has no field for, a config.json may hold more.

A misspelt argument would change nothing in silence. But other tools write keys of their own into a config.json, and so
does whoever sets an attribute of a config in memory: what was saved must load again.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from transformers.utils import logging

from .registry_trm import near_miss

logger = logging.get_logger(__name__)

# What a config.json carries besides our fields; transformers consumes these itself.
HUB_METADATA = frozenset(
    "model_type transformers_version torch_dtype dtype auto_map name_or_path attn_implementation "
    "experts_implementation output_attentions num_labels custom_pipelines use_cache".split()  # the last: the Trainer's
)


class ConfigFile:
    """The part of a configuration, a dataclass, that reads config.json. Dropped keys are told once, with the file."""

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As transformers', and where it was read, for `from_dict` to tell; AutoConfig passes that on as well."""
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)  # type: ignore[misc]
        return config_dict, {"name_or_path": str(pretrained_model_name_or_path)} | kwargs

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As transformers', without the keys that no field takes."""
        unknown = cls.unknown_keys(config_dict)
        if unknown:
            names = ", ".join(f"{key!r}{hint}" for key, hint in unknown.items())
            where = kwargs.get("name_or_path", "a configuration")
            logger.warning_once(f"config.json of {where}: dropped, for TRMConfig has no such field: {names}")
        known = {**config_dict}
        for key in unknown:
            del known[key]
        return super().from_dict(known, **kwargs)  # type: ignore[misc]

    @classmethod
    def from_json_file(cls, json_file: Any) -> Any:
        """As transformers', which would call the constructor with what it read."""
        return cls.from_dict(cls._dict_from_json_file(json_file), name_or_path=str(json_file))  # type: ignore[attr-defined]

    @classmethod
    def unknown_keys(cls, keys: Iterable[str]) -> dict[str, str]:
        """{key: what may have been meant} of those that are neither fields nor what transformers consumes."""
        fields = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]  # it is one
        return {key: near_miss(key, fields) for key in keys if key not in fields | HUB_METADATA and key[:1] != "_"}
