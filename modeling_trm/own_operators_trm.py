"""The operators that a checkpoint brings along, by name; the package itself has none.

This file is written anew beside a model with operators of a user's own (see operator_files_trm).
"""

from typing import Any

OWN_OPERATORS: dict[str, Any] = {}
