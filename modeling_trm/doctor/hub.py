"""What loading from the Hub and publishing to it would find: endpoint, offline mode, token, cache. Nothing is sent."""

import os
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants, get_token

from .findings import Finding


def check_hub() -> Iterator[Finding]:
    yield Finding("hub", "endpoint", constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE:
        yield Finding("hub", "offline mode", "on: only what is in the cache loads", "unset HF_HUB_OFFLINE to download")
    else:
        yield Finding("hub", "offline mode", "off")
    # Whether there is one; the token itself is never shown.
    has_token = get_token() is not None
    how = "not found: public repositories load, nothing can be published (hf auth login, or HF_TOKEN)"
    yield Finding("hub", "token", "found" if has_token else how)
    cache = Path(constants.HF_HUB_CACHE)
    if _is_writable(cache):
        yield Finding("hub", "cache", f"{cache}, writable")
    else:
        yield Finding("hub", "cache", f"{cache} cannot be written into", "set HF_HOME to a folder of your own")


def _is_writable(folder: Path) -> bool:
    """Whether the folder, or where it would be made, can be written into."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
