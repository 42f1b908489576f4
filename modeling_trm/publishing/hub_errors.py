"""What went wrong between us and the Hub, in one line that does not hold the token."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

# HTTPError covers a connection that breaks, whichever HTTP library this version of huggingface_hub uses. RuntimeError
# is what it raises around a file whose upload failed; ValueError what it says of a card or an answer that is malformed.
HUB_ERRORS = (HTTPError, OSError, ValueError, RuntimeError)
MEANING = {
    401: "the token was not accepted",
    402: "the Hub wants payment for this",
    403: "the token may not write there",
    404: "there is no such repository, or the token may not see it",
    412: "the repository has changed in the meantime",
    429: "too many requests, wait a while",
}


class HubError(Exception):
    """The Hub did not do what was asked; the message is one line."""


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turns every error of the Hub into a HubError that says what was being done."""
    try:
        yield
    except HUB_ERRORS as error:
        raise HubError(f"{what}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """One line; the token is replaced, should the server have sent it back."""
    text = " ".join(_reason(error).split())
    token = get_token()
    return text.replace(token, "<token>") if token else text


def _reason(error: BaseException) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        return "offline mode is on (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE)"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        parts = [f"the Hub answered {status}", MEANING.get(status), error.server_message]
        return ": ".join(part for part in parts if part)
    if isinstance(error, HTTPError):
        return f"no answer from {constants.ENDPOINT} ({type(error).__name__}: {error})"
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        return f"{error} {_reason(error.__cause__)}"
    return str(error) or type(error).__name__
