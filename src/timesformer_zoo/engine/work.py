"""What is done to a video."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

__all__ = ["Row", "Work"]

Row = dict[str, Any]


class Work(Protocol):
    """What is done to a video: a small object that can be pickled, such as a frozen dataclass of plain values.

    @dataclass(frozen=True)
    class Classify:
        model: str

        @property
        def settings(self):
            return {"model": self.model}

        def load(self):
            model = load_model(self.model)
            return lambda path: predict(model, [path])[0].to_dict()
    """

    @property
    def settings(self) -> Mapping[str, Any]:
        """Plain values for JSON, on which answers depend: a folder holds rows of one work with one set of these."""
        ...

    def load(self) -> Callable[[str], Mapping[str, Any]]:
        """Called once in each worker: what it gives makes of a path a dict of plain values for JSON.

        That function raises VideoReadError for a video that can't be read.
        """
        ...
