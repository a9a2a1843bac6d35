"""One error, in the user's terms, where a model's weights cannot be had, or are not what was published."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from timesformer_zoo.errors import CheckpointError, DownloadError

__all__ = ["explain_hub_errors"]

# What reading a file that is damaged, missing or something else ends in, besides safetensors' own error.
_UNREADABLE = (RuntimeError, ValueError, KeyError, EOFError, FileNotFoundError, pickle.UnpicklingError)
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in the order in which timm looks for them


@contextmanager
def explain_hub_errors(config: Mapping[str, Any], cache_dir: str | Path | None = None) -> Iterator[None]:
    """Turn the errors of getting and reading weights into one that says what to do.

    Also checks what was downloaded in it against the hash that the Hub announced: the Hub's client checks the size
    alone. A damaged file is removed from the cache, so that loading again downloads it again.

    Args:
        config: timm's pretrained config of the model being created.
        cache_dir: where downloads are kept, if not in the Hub client's and torch's own place.

    Raises:
        DownloadError: instead of any error of the network, the Hub client or the server, naming the model, the
            source, and the cache; or where a file was damaged on its way.
        CheckpointError: instead of any error of reading the file, naming it.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError

    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from safetensors import SafetensorError

    # The client's own HTTP library, which differs from one of its releases to another: its error is the base class.
    transport = tuple(base for base in HfHubHTTPError.__bases__ if base is not OSError)
    network = (LocalEntryNotFoundError, OfflineModeIsEnabled, URLError, HTTPException, ConnectionError, TimeoutError)
    before = _cached_file(config, cache_dir)
    try:
        yield
    except DownloadError:
        raise
    except (*transport, *network) as error:  # type: ignore[misc]
        if isinstance(error, HTTPError):
            error.close()  # it is also the response, and keeps the connection
        raise DownloadError(_describe(config, error, cache_dir)) from error
    except (*_UNREADABLE, SafetensorError) as error:
        # Was it the file? Our own reader says what is wrong with one; if it finds nothing, the error was another.
        cached = _cached_file(config, cache_dir)
        if cached is not None:
            _check_hash(cached)
        for path in filter(None, [cached, config.get("file")]):
            _read(Path(path), cached is not None, error)
        raise
    after = _cached_file(config, cache_dir)
    if after is not None and after != before:
        _check_hash(after)


def _describe(config: Mapping[str, Any], error: Exception, cache_dir: str | Path | None) -> str:
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    advice = {  # the first that fits
        hub.GatedRepoError: "It is gated: accept its terms on its page, then log in with `hf auth login`",
        hub.RepositoryNotFoundError: "It does not exist, or is private: check the name, or log in with `hf auth login`",
        hub.RevisionNotFoundError: "It has no such revision: check what follows the @",
        hub.RemoteEntryNotFoundError: "It has no such file; a model has config.json and model.safetensors or "
        "pytorch_model.bin",
        Exception: "Connect and retry, or fetch the file elsewhere and pass pretrained_cfg_overlay=dict(file=PATH)",
    }
    source = config.get("hf_hub_id") or config.get("url")
    name = ".".join(part for part in (config.get("architecture"), config.get("tag")) if part) or source
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None) or getattr(error, "code", None)
    cause = f"HTTP {status}" if status else type(error).__name__
    cache = cache_dir or (constants.HF_HUB_CACHE if config.get("hf_hub_id") else _torch_cache())
    return (
        f"The weights of {name} could not be had from {source} ({cause}), nor are they in the cache, {cache}. "
        f"HF_HUB_OFFLINE is {'on' if constants.HF_HUB_OFFLINE else 'off'}. "
        f"{next(text for kind, text in advice.items() if isinstance(error, kind))}."
    )


def _cached_file(config: Mapping[str, Any], cache_dir: str | Path | None) -> Path | None:
    """The downloaded file that a config's weights are read from; None if there is none, or it was not downloaded."""
    if config.get("state_dict") or config.get("file"):
        return None
    if repository := config.get("hf_hub_id"):
        from huggingface_hub import try_to_load_from_cache

        repo_id, _, revision = repository.partition("@")
        names = [config["hf_hub_filename"]] if config.get("hf_hub_filename") else _WEIGHTS
        found = [try_to_load_from_cache(repo_id, name, cache_dir, revision or None) for name in names]
        return next((Path(path) for path in found if isinstance(path, str)), None)
    if url := config.get("url"):
        path = Path(cache_dir or _torch_cache()) / url.rpartition("/")[2]
        return path if path.is_file() else None
    return None


def _torch_cache() -> Path:
    from torch.hub import get_dir

    return Path(get_dir()) / "checkpoints"


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


def _read(path: Path, downloaded: bool, error: Exception) -> None:
    from timesformer_zoo.weights.files import read_checkpoint

    try:
        read_checkpoint(path)
    except CheckpointError as fault:
        advice = f". To download it again, delete {path.resolve()}" if downloaded else ""
        raise CheckpointError(f"{fault}{advice}") from error
