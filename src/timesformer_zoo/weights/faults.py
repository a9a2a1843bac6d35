"""What went wrong between us and the Hub, or another server: which fault it is and what to do, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from typing import NamedTuple
from urllib.error import HTTPError, URLError

from timesformer_zoo.errors import TimesformerZooError

__all__ = ["explained", "network_errors"]


class _Fault(NamedTuple):
    which: str  # follows "…:"; {status}, {detail} and {page} are filled in
    what_to_do: str  # a sentence; likewise, and {wait}


_ELSEWHERE = "fetch the files elsewhere and load them as a file or folder (pretrained_cfg_overlay=dict(file=PATH))"

_OF_THE_CLIENT = {  # by the class of the client's error, in huggingface_hub.errors; the first that fits
    "OfflineModeIsEnabled": _Fault("HF_HUB_OFFLINE is on", f"Unset it, or {_ELSEWHERE}"),
    "LocalTokenNotFoundError": _Fault("nobody is logged in", "Log in with `hf auth login`, or set HF_TOKEN"),
    "GatedRepoError": _Fault("it is gated", "Accept its terms at {page}, then log in with `hf auth login`"),
    "DisabledRepoError": _Fault("it has been disabled", "Its page may say why: {page}"),
    "RepositoryNotFoundError": _Fault(
        "there is no such repository, or it is private",
        "Check the name; if it is private, log in with `hf auth login` as somebody who may read it",
    ),
    "RevisionNotFoundError": _Fault("it has no such revision", "Check the branch, tag or commit (what follows the @)"),
    "FileMetadataError": _Fault("what answered is no Hub ({detail})", "Check HF_ENDPOINT, and the proxy"),
}
_OF_A_STATUS = {  # by the HTTP status
    401: _Fault("the token is not accepted (HTTP 401)", "Log in again with `hf auth login`, or change HF_TOKEN"),
    403: _Fault(
        "access is forbidden (HTTP 403)",
        "Log in with `hf auth login` as somebody who has the right to it; a token's own rights are at its page, "
        "https://huggingface.co/settings/tokens",
    ),
    404: _Fault("there is no such file (HTTP 404)", "Check the name"),
    429: _Fault(
        "too many requests (HTTP 429)", "Try again {wait}; who is logged in (`hf auth login`) may ask more often"
    ),
}
_OF_THE_SERVER = _Fault("the server has a fault of its own (HTTP {status})", f"Try again later, or {_ELSEWHERE}")
_NO_ANSWER = _Fault(
    "there was no answer in time ({detail})",
    f"Connect and retry (with HF_HUB_ETAG_TIMEOUT=30 to wait half a minute), or {_ELSEWHERE}",
)
_NO_CONNECTION = _Fault("there is no connection ({detail})", f"Connect and retry, or {_ELSEWHERE}")
_OTHER_STATUS = _Fault("the request was refused (HTTP {status})", "Check the name and the token (`hf auth login`)")


def network_errors() -> tuple[type[Exception], ...]:
    """What the Hub's client, its HTTP library and urllib raise for a network, a server or the Hub's refusal."""
    from huggingface_hub import errors as hub

    # The client's HTTP library differs from one of its releases to another: its error is the base class.
    transport = tuple(base for base in hub.HfHubHTTPError.__bases__ if base is not OSError)
    of_the_client = (hub.LocalEntryNotFoundError, hub.LocalTokenNotFoundError, hub.FileMetadataError)
    others = (hub.OfflineModeIsEnabled, URLError, HTTPException, ConnectionError, TimeoutError)
    return (*transport, *of_the_client, *others)


@contextmanager
def explained(kind: type[TimesformerZooError], action: str, source: str, also: str = "") -> Iterator[None]:
    """Around calls to the network: an error of one line in place of the client's, which it has as its `__cause__`.

    Args:
        kind: the error's class.
        action: what could not be done: "x could not be downloaded".
        source: OWNER/NAME, if need be with @REVISION, or an address.
        also: what else is to be said of the fault, from its comma on.
    """
    errors = network_errors()
    try:
        yield
    except errors as error:
        raise kind(_in_words(error, action, source, also)) from error
    except RuntimeError as error:  # the client's, around what stopped an upload
        if not isinstance(error.__cause__, errors):
            raise
        raise kind(_in_words(error.__cause__, action, source, also)) from error


def _in_words(error: BaseException, action: str, source: str, also: str) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # why the client looked in its cache
    if isinstance(error, HTTPError):
        error.close()  # it is also the response, and keeps the connection
    response = getattr(error, "response", error)
    status = getattr(response, "status_code", None) or getattr(error, "code", None)
    wait = (getattr(response, "headers", None) or {}).get("Retry-After", "")
    filled = dict(
        status=status,
        detail=" ".join(str(error).split()) or type(error).__name__,
        page=source if "://" in source else f"{constants.ENDPOINT}/{source.partition('@')[0]}",
        wait=f"in {wait} s" if wait.isdigit() else "later",
    )
    fault = _fault(error, status)
    return f"{action}: {fault.which.format(**filled)}{also}. {fault.what_to_do.format(**filled)}."


def _fault(error: BaseException, status: int | None) -> _Fault:
    from huggingface_hub import errors as hub

    for name, fault in _OF_THE_CLIENT.items():
        if isinstance(error, getattr(hub, name)):
            return fault
    if status is not None:
        of_the_server = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        return _OF_THE_SERVER if of_the_server else _OF_A_STATUS.get(status, _OTHER_STATUS)
    reason = getattr(error, "reason", error)  # urllib's URLError is around what it means
    timed_out = isinstance(reason, TimeoutError) or "Timeout" in type(error).__name__
    return _NO_ANSWER if timed_out else _NO_CONNECTION
