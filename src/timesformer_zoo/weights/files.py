"""Reading weight files without running anything that is in them."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from timesformer_zoo.errors import CheckpointError
from timesformer_zoo.weights import pickles
from timesformer_zoo.weights.unwrap import unwrap

__all__ = ["NAMES", "read_checkpoint", "weight_file_in"]

NAMES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
"""What a folder or a repository calls its file of weights, the first that is there: the safe one first, as in timm."""

_ZIP = b"PK\x03\x04"  # torch.save since 1.6
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before: a pickled magic number comes first
_OTHERS = {  # how files start that are often found in place of weights
    b"version https://git-lfs": "a Git LFS pointer: run `git lfs pull` to get the weights themselves",
    b"<": "a web page: the download went to an error or login page",
}
_PICKLE = b"\x80"  # of protocol 2 or later: Paddle's .pdparams, a dict of numpy arrays
_CONVERT = (
    "If you trust its origin, convert it once in a sandbox (a container without network or secrets): "
    "`checkpoint = torch.load(path, weights_only=False)`, then "
    "`safetensors.torch.save_file(checkpoint['state_dict'], 'model.safetensors')`, and load that file here"
)


def read_checkpoint(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a weight file on the CPU: safetensors, torch.save's, or a pickle of numpy arrays (Paddle's `.pdparams`).

    Nothing that a file holds is run. torch.save's are read with `weights_only=True`; where it refuses, as beside the
    weights there is some project's object (a `parse_config.ConfigParser`, an `argparse.Namespace`), by an unpickler
    that imports nothing: such objects come out empty (see `weights.pickles`). A pickle that calls a function is
    refused.

    Args:
        path: a file, told by its content and not by its suffix, or a folder that has one of `NAMES` (the first is
            taken).

    Returns:
        The state dict under its own project's keys, unwrapped (see `unwrap`): a dict, whose `left_out` names what
        else the file has.

    Raises:
        CheckpointError: the file is missing, empty, damaged, not a weight file, or a pickle that would run code.
    """
    path = weight_file_in(Path(path))
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not head:
        raise CheckpointError(f"{path}: the file is empty; download it again")
    safetensors = head[8:9] == b"{"  # after eight bytes of length, which may begin like anything
    for start, meaning in _OTHERS.items():
        if head.startswith(start) and not safetensors and not head.startswith(_LEGACY):
            raise CheckpointError(f"{path}: not a weight file but {meaning}")
    read = _read_safetensors
    if not safetensors and head.startswith(_PICKLE):
        read = _read_pickle
    if not safetensors and head.startswith((_ZIP, _LEGACY)):
        read = _read_torch
    try:
        return unwrap(read(path))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def weight_file_in(path: Path) -> Path:
    """The file of weights that a folder has, or the file itself. Raises CheckpointError: there is none."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such file")
    for name in NAMES:
        if (path / name).is_file():
            return path / name
    present = sorted(entry.name for entry in path.iterdir())
    raise CheckpointError(f"{path}: a folder of weights has one of {NAMES}; this one has {present[:10]}")


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(
            f"neither a safetensors file nor one of torch.save, or damaged ({error}); download it again"
        ) from error


def _read_torch(path: Path) -> Any:
    with _explained():
        try:
            with path.open("rb") as file, warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Detected pickle protocol")  # which the second try reads
                return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:  # more than tensors and plain values
            with path.open("rb") as file:
                return _tensors(torch.load(file, map_location="cpu", pickle_module=pickles, weights_only=False))


def _read_pickle(path: Path) -> Any:
    with _explained(), path.open("rb") as file:
        return _tensors(pickles.load(file))


def _tensors(content: Any) -> Any:
    """The same, where arrays are tensors."""
    if isinstance(content, pickles.Array):
        return content.tensor
    return {key: _tensors(value) for key, value in content.items()} if isinstance(content, dict) else content


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"refused: the pickle holds more than tensors and plain values, and could run code ({error}). {_CONVERT}"
        ) from error
    except Exception as error:  # a damaged archive fails anywhere: KeyError, EOFError, RuntimeError …
        raise CheckpointError(
            f"damaged or incomplete ({type(error).__name__}: {str(error)[:200]}); download it again"
        ) from error
