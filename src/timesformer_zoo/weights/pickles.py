"""Pickles without running anything that is in them: tensors, arrays and plain values come out, all else is inert.

A pickle names classes and functions, and has them called. Here a name is never imported: those below stand for what
builds tensors, arrays and containers, and every other name is a new class of its own that keeps nothing (a project's
config object beside the weights, an optimizer's parts). An instance of such a class may be made and filled, as pickle
does with an object of plain attributes; a call of anything that does not just hold values is refused.

The module itself can be the `pickle_module` of `torch.load`.
"""

from __future__ import annotations

import pickle
import re
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # of Python 2's names, in which protocol 2 is written
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any

import torch

__all__ = ["Array", "Unknown", "Unpickler", "load"]


class _Name(type):
    """The class of names that a pickle has and we do not import."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """A call in the pickle, as of an enum's class, or of `os.system`: never run, and accepted only if harmless."""
        name = f"{cls.__module__}.{cls.__qualname__}"
        if not _HOLDS_VALUES.fullmatch(name) and not _is_foreign_class(name):
            raise pickle.UnpicklingError(f"calls {name}")
        made: Any = object.__new__(cls)  # type: ignore[arg-type]  # it is a class of Unknown's
        return made


class Unknown(metaclass=_Name):
    """An object of a class that is not imported; what the pickle fills it with is dropped."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Unknown:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None:
        """Of subclasses of list."""

    def extend(self, values: Any) -> None:
        """Likewise."""

    def add(self, value: Any) -> None:
        """Of subclasses of set."""


class _Function:
    """A function that a pickle may call, and do nothing else with."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("changes a function")


# Of the standard library and of numpy, what pickles as a call and holds values.
_HOLDS_VALUES = re.compile(
    r"(pathlib|pathlib\._local|datetime|decimal|fractions|uuid)\.\w+"
    r"|collections\.(deque|Counter)|logging\.getLogger|re\._compile|functools\.partial|types\.SimpleNamespace|copyreg\._reconstructor"
    r"|builtins\.(set|frozenset|bytearray|complex|slice|range|object)"
    r"|numpy(\._?core)?\.multiarray\.scalar|numpy\.random\._pickle\.\w+"
)


def _is_foreign_class(name: str) -> bool:
    """Whether a name is that of a class of some project, as a member of an Enum names its own, by how it is written."""
    package, _, rest = name.partition(".")
    ours = {*sys.stdlib_module_names, "torch", "numpy"}
    return package not in ours and re.match("_?[A-Z]", rest.rpartition(".")[2]) is not None


class _Dtype:
    """What a pickled `numpy.dtype` says: a typecode such as "f4", and "<" or "|"."""

    def __init__(self, typecode: str, *_: Any) -> None:
        self.typecode, self.order = str(typecode), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def of_torch(self) -> torch.dtype:
        if self.typecode not in _DTYPES or self.order not in ("<", "|", "="):
            raise pickle.UnpicklingError(f"has an array of {self.order}{self.typecode}")
        return _DTYPES[self.typecode]


_DTYPES = {
    "f2": torch.float16, "f4": torch.float32, "f8": torch.float64, "b1": torch.bool, "u1": torch.uint8,
    "i1": torch.int8, "i2": torch.int16, "i4": torch.int32, "i8": torch.int64,
}  # fmt: skip


class Array:
    """A pickled numpy array, as a tensor."""

    tensor: torch.Tensor

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_columns, data = state
        self.fill(data, dtype, shape, by_columns)

    def fill(self, data: Any, dtype: _Dtype, shape: tuple[int, ...], by_columns: bool) -> Array:
        """Take the values, which numpy wrote by rows, or as Fortran does by columns."""
        raw = bytearray(data.encode("latin1") if isinstance(data, str) else data)  # Python 2 wrote a str
        flat = torch.frombuffer(raw, dtype=dtype.of_torch()) if raw else torch.empty(0, dtype=dtype.of_torch())
        self.tensor = flat.reshape(shape[::-1]).permute(*range(len(shape))[::-1]) if by_columns else flat.reshape(shape)
        return self


def _from_buffer(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> Array:
    return Array().fill(data, dtype, shape, order == "F")


def _bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":  # how bytes are pickled where the protocol has none
        raise pickle.UnpicklingError(f"calls _codecs.encode for {encoding}")
    return text.encode("latin1")


def _array_parts() -> dict[str, Any]:
    parts: dict[str, Any] = {"numpy.dtype": _Function(_Dtype), "_codecs.encode": _Function(_bytes)}
    for core in ("numpy.core", "numpy._core"):  # before numpy 2, and since
        parts[f"{core}.multiarray._reconstruct"] = _Function(lambda *_: Array())
        parts[f"{core}.numeric._frombuffer"] = _Function(_from_buffer)
    return parts


def _tensor_parts() -> dict[str, Any]:
    utils: Any = torch._utils
    names = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_parameter_with_state")
    parts: dict[str, Any] = {f"torch._utils.{name}": _Function(getattr(utils, name)) for name in names}
    # Of a tensor with attributes: without them.
    parts["torch._tensor._rebuild_from_type_v2"] = _Function(lambda function, kind, args, state: function(*args))
    parts["torch.Size"] = _Function(torch.Size)
    parts["torch.device"] = _Function(torch.device)
    for name in ("float16", "float32", "float64", "bfloat16", "int8", "uint8", "int16", "int32", "int64", "bool"):
        parts[f"torch.{name}"] = getattr(torch, name)
    return parts


class Unpickler(pickle.Unpickler):
    """Python's, where a name is never imported."""

    def __init__(self, file: IO[bytes], **options: Any) -> None:
        super().__init__(file, **{**options, "encoding": "latin1"})  # of Python 2's strings, which hold arrays
        self._known: dict[str, Any] = {
            "collections.OrderedDict": _Function(OrderedDict),
            "collections.defaultdict": _Function(lambda factory=None, *items: dict(*items)),
            **_tensor_parts(),
            **_array_parts(),
        }

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name; made anew for each pickle, so that none can change it for the next."""
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full = f"{module}.{name}"
        if full not in self._known:
            self._known[full] = _Name(name, (Unknown,), {"__module__": module, "__qualname__": name})
        return self._known[full]


def load(file: IO[bytes], **options: Any) -> Any:
    """Read one pickle from a file.

    Raises:
        pickle.UnpicklingError: it calls something that does not just hold values.
    """
    return Unpickler(file, **options).load()
