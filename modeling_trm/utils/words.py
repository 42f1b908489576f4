"""Names in messages and pictures, kept short."""

from collections.abc import Sequence


def first_few(names: Sequence[str], most: int = 3) -> str:
    """The first of them, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def shortened(name: str, most: int) -> str:
    """The end of a long name or path, which tells more than its beginning."""
    return name if len(name) <= most else f"…{name[1 - most :]}"
