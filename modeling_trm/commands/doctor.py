"""Say what this machine has, which paths a model takes on it, and what to do about what is missing."""

from ..doctor.__main__ import main

__all__ = ["main"]
