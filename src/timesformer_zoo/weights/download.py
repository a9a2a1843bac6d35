"""Where a model's published weights are, and getting them here; what goes wrong on the way is in `faults`."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import torch

from timesformer_zoo.errors import CheckpointError, DownloadError
from timesformer_zoo.weights.checkpoint import is_page
from timesformer_zoo.weights.faults import explained, network_errors
from timesformer_zoo.weights.files import read_checkpoint
from timesformer_zoo.weights.unwrap import unwrap
from timesformer_zoo.writing import writing

__all__ = ["hub_file", "patience", "published_weights", "weights_file"]

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # of a repository, the first that is there
_SHA256 = re.compile(r"_(?:\d{8}|rgb)-([0-9a-f]{8})\.pth$")  # OpenMMLab's names end in the start of a hash
_MD5 = re.compile(r"\.md5sum_([0-9a-f]{6})\.pth$")  # LaViLa's likewise


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
    if is_page(source):
        raise DownloadError(
            f"{name} can't be downloaded by a program: fetch the file by hand from {source}, and load it with "
            "timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay=dict(file=PATH))"
        )
    if config.get("hf_hub_id"):
        path = weights_file(source, config.get("hf_hub_filename"), cache_dir, name)
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
        WriteError: the cache's disk is full, or may not be written to.
    """
    from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import RemoteEntryNotFoundError, RevisionNotFoundError
    from huggingface_hub.file_download import _CACHED_NO_EXIST

    repo_id, _, revision = repository.partition("@")
    cached = try_to_load_from_cache(repo_id, name, cache_dir, revision or None)
    if isinstance(cached, str) and re.fullmatch("[0-9a-f]{40}", revision):
        return Path(cached)  # of a commit, which never changes: nobody is asked
    # Outside: what the network does is explained first, and what is left is of the cache.
    with writing(_cache(repository, cache_dir)), _explained(model, repository, cache_dir):
        try:
            latest = _ask(hf_hub_url(repo_id, name, revision=revision or None))
            if isinstance(cached, str) and latest in Path(cached).parts:
                return Path(cached)
        except RemoteEntryNotFoundError:
            pass  # to be raised again below, where the client notes it in its cache
        except RevisionNotFoundError:
            raise
        except network_errors():  # the cache knows what the repository had, and what it did not have
            if cached is _CACHED_NO_EXIST:
                return None
            if not isinstance(cached, str):
                raise
            return Path(cached)
        try:
            path = hf_hub_download(
                repo_id, name, revision=revision or None, cache_dir=cache_dir, library_name="timesformer-zoo"
            )
        except RemoteEntryNotFoundError:
            return None
    if path != cached:
        _check_hash(Path(path))
    return Path(path)


def patience() -> float:
    """Seconds to wait for a server to say anything: HF_HUB_ETAG_TIMEOUT if it is set, else few.

    The client's own default is 10, for each of six tries.
    """
    from huggingface_hub import constants

    return constants.HF_HUB_ETAG_TIMEOUT if "HF_HUB_ETAG_TIMEOUT" in os.environ else 3


def _ask(url: str) -> str:
    """The commit that a file of the Hub is of, or within seconds why not: `hf_hub_download` tries for half a minute.

    A server's own fault, as the Hub has while it is updated, is asked about once more.
    """
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.errors import HfHubHTTPError

    ask = partial(get_hf_file_metadata, url, timeout=patience(), library_name="timesformer-zoo")
    try:
        found = ask()
    except HfHubHTTPError as error:
        if error.response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        time.sleep(1)
        found = ask()
    return found.commit_hash or ""


def weights_file(
    repository: str, filename: str | None = None, cache_dir: str | Path | None = None, model: str | None = None
) -> Path:
    """The file of weights of a repository of the Hub: `filename`, or whichever it has. All else as `hub_file`.

    Raises:
        DownloadError: as `hub_file`; or there is no such file.
    """
    from huggingface_hub import try_to_load_from_cache

    repo_id, _, revision = repository.partition("@")
    names = [filename] if filename else _WEIGHTS
    try:
        for name in names:
            if path := hub_file(repository, name, cache_dir, model):
                return path
    except DownloadError as error:
        if error.__cause__ is None:  # it was damaged
            raise
        # Nobody is there to ask. Who filled the cache may not have asked for the first of these files.
        for name in names:
            if isinstance(cached := try_to_load_from_cache(repo_id, name, cache_dir, revision or None), str):
                return Path(cached)
        raise
    raise DownloadError(
        f"{model or repository} could not be downloaded: {repository} has no {' or '.join(names)}. "
        "Check the name: a model has config.json and one of them."
    )


def _plain_file(url: str, cache_dir: str | Path | None, model: str) -> Path:
    """The file of an address, from torch's cache or downloaded to it."""
    path = _cache(url, cache_dir) / Path(urlparse(url).path).name
    if not path.is_file():
        announced = _SHA256.search(path.name)
        try:
            with writing(path.parent), _explained(model, url, cache_dir):
                path.parent.mkdir(parents=True, exist_ok=True)
                # Without this, torch would wait for a server that says nothing for ever. One byte is enough.
                urlopen(Request(url, headers={"Range": "bytes=0-0"}), timeout=patience()).close()
                torch.hub.download_url_to_file(url, str(path), announced[1] if announced else None)
            _check_md5(path)
        except RuntimeError as error:  # it has another hash; nothing was kept
            raise DownloadError(f"{url} was damaged on its way ({error}): load again to download it again.") from error
    return path


def _check_md5(path: Path) -> None:
    """Remove and refuse a file that is not what its name announces.

    Raises:
        RuntimeError: as torch says it of sha256.
    """
    if not (announced := _MD5.search(path.name)):
        return
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    if not digest.hexdigest().startswith(announced[1]):
        path.unlink()
        raise RuntimeError(f'invalid hash value (expected md5 "{announced[1]}", got "{digest.hexdigest()}")')


def _explained(model: str | None, source: str, cache_dir: str | Path | None) -> AbstractContextManager[None]:
    """Around one call to the network: a DownloadError in the user's terms in place of the client's."""
    action = f"{model} could not be downloaded from {source}" if model else f"{source} could not be downloaded"
    return explained(DownloadError, action, source, f", and the cache, {_cache(source, cache_dir)}, does not have it")


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
