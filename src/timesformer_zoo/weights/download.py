"""Where a model's published weights are, and getting them here: the one file that knows a network, beside `hub`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from timesformer_zoo.errors import CheckpointError, DownloadError
from timesformer_zoo.weights.files import read_checkpoint
from timesformer_zoo.weights.unwrap import unwrap

__all__ = ["hub_file", "published_weights"]

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # of a repository, the first that is there
_NO_SUCH_FILE = f"It has no such file; a model has config.json and {' or '.join(_WEIGHTS)}"
_OPENMMLAB = re.compile(r"_\d{8}-([0-9a-f]{8})\.pth$")  # their files' names end in a date and the start of the sha256


def published_weights(config: Mapping[str, Any], cache_dir: str | Path | None = None) -> dict[str, torch.Tensor]:
    """The weights that one of timm's pretrained configs points to, downloaded if they are not in the cache.

    Args:
        config: its `state_dict`, `file` (or folder), `hf_hub_id` (with `hf_hub_filename`) or `url` says where they
            are; the first that is given counts.
        cache_dir: where downloads are kept, if not in the Hub client's and torch's own place.

    Returns:
        The state dict under its own project's keys, unwrapped.

    Raises:
        DownloadError: they can't be had, or were damaged on their way.
        CheckpointError: there are none, or the file can't be read.
    """
    source: str = config.get("hf_hub_id") or config.get("url") or ""
    name = ".".join(part for part in (config.get("architecture"), config.get("tag")) if part) or source
    if config.get("state_dict"):
        return unwrap(config["state_dict"])
    if config.get("file"):
        return read_checkpoint(config["file"])
    if not source:
        raise CheckpointError(f"There are no weights for {name}; `timesformer-zoo list` shows which models have some.")
    if config.get("hf_hub_id"):
        path = _weights_of(source, config.get("hf_hub_filename"), cache_dir, name)
    else:
        path = _plain_file(source, cache_dir, name)
    try:
        return read_checkpoint(path)
    except CheckpointError as error:
        _check_hash(path)
        raise CheckpointError(f"{error}. To download it again, delete {path.resolve()}") from error


def hub_file(repository: str, name: str, cache_dir: str | Path | None = None, model: str | None = None) -> Path | None:
    """A file of a repository of the Hub, from the cache or downloaded; None if the repository has no such file.

    What is downloaded is also checked against the hash that the Hub announced, which the Hub's client does not do. A
    damaged file is removed from the cache, so that asking again downloads it again.

    Args:
        repository: OWNER/NAME, if need be with @REVISION.
        name: of the file.
        cache_dir: where it is kept, if not in the Hub client's own place.
        model: what the file is of, for the error.

    Raises:
        DownloadError: it can't be had, or was damaged on its way.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError
    from huggingface_hub.file_download import _CACHED_NO_EXIST

    repo_id, _, revision = repository.partition("@")
    cached = try_to_load_from_cache(repo_id, name, cache_dir, revision or None)
    with _explained(model or repository, repository, cache_dir):
        try:
            path = hf_hub_download(
                repo_id, name, revision=revision or None, cache_dir=cache_dir, library_name="timesformer-zoo"
            )
        except RemoteEntryNotFoundError:
            return None
        except LocalEntryNotFoundError:  # no network: the cache remembers what the repository does not have
            if cached is _CACHED_NO_EXIST:
                return None
            raise
    if path != cached:
        _check_hash(Path(path))
    return Path(path)


def _weights_of(repository: str, filename: str | None, cache_dir: str | Path | None, model: str) -> Path:
    from huggingface_hub.errors import LocalEntryNotFoundError

    fault = DownloadError(_message(model, repository, "HTTP 404", cache_dir, _NO_SUCH_FILE))
    for name in [filename] if filename else _WEIGHTS:
        try:
            if path := hub_file(repository, name, cache_dir, model):
                return path
        except DownloadError as error:
            if not isinstance(error.__cause__, LocalEntryNotFoundError):
                raise
            fault = error  # nobody to ask, and this one is not in the cache: the next may be
    raise fault


def _plain_file(url: str, cache_dir: str | Path | None, model: str) -> Path:
    """The file of an address, from torch's cache or downloaded to it."""
    path = _cache(url, cache_dir) / Path(urlparse(url).path).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        announced = _OPENMMLAB.search(path.name)
        try:
            with _explained(model, url, cache_dir):
                torch.hub.download_url_to_file(url, str(path), announced[1] if announced else None)
        except RuntimeError as error:  # it has another hash; nothing was kept
            raise DownloadError(f"{url} was damaged on its way ({error}): load again to download it again.") from error
    return path


@contextmanager
def _explained(model: str, source: str, cache_dir: str | Path | None) -> Iterator[None]:
    """Around one call to the network: a DownloadError in the user's terms in place of the client's."""
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError

    from huggingface_hub import errors as hub

    advice = {  # the first that fits
        hub.GatedRepoError: "It is gated: accept its terms on its page, then log in with `hf auth login`",
        hub.RepositoryNotFoundError: "It does not exist, or is private: check the name, or log in with `hf auth login`",
        hub.RevisionNotFoundError: "It has no such revision: check what follows the @",
        Exception: "Connect and retry, or fetch the file elsewhere and pass pretrained_cfg_overlay=dict(file=PATH)",
    }
    # The client's own HTTP library, which differs from one of its releases to another: its error is the base class.
    transport = tuple(base for base in hub.HfHubHTTPError.__bases__ if base is not OSError)
    network = (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, URLError, HTTPException, ConnectionError)
    try:
        yield
    except (*transport, *network, TimeoutError) as error:  # type: ignore[misc]
        if isinstance(error, HTTPError):
            error.close()  # it is also the response, and keeps the connection
        status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "code", None)
        cause = f"HTTP {status}" if status else type(error).__name__
        what_to_do = next(text for kind, text in advice.items() if isinstance(error, kind))
        raise DownloadError(_message(model, source, cause, cache_dir, what_to_do)) from error


def _message(model: str, source: str, cause: str, cache_dir: str | Path | None, advice: str) -> str:
    from huggingface_hub import constants

    return (
        f"The weights of {model} could not be had from {source} ({cause}), nor are they in the cache, "
        f"{_cache(source, cache_dir)}. HF_HUB_OFFLINE is {'on' if constants.HF_HUB_OFFLINE else 'off'}. {advice}."
    )


def _cache(source: str, cache_dir: str | Path | None) -> Path:
    """Where the Hub's client or torch keep what comes from an address."""
    from huggingface_hub import constants

    if cache_dir:
        return Path(cache_dir)
    return Path(torch.hub.get_dir(), "checkpoints") if "://" in source else Path(constants.HF_HUB_CACHE)


def _check_hash(path: Path) -> None:
    """Remove and refuse a file that is not the one which the Hub announced."""
    from huggingface_hub.utils.sha import sha_fileobj

    blob = path.resolve()
    if not re.fullmatch("[0-9a-f]{64}", blob.name):  # the client names a large file by its sha256, where it can link
        return
    with blob.open("rb") as file:
        got = sha_fileobj(file).hex()
    if got != blob.name:
        blob.unlink()
        raise DownloadError(
            f"{path} was damaged on its way or in the cache (sha256 {got}, expected {blob.name}); it has been removed: "
            "load again to download it again."
        )
