"""From a list's rows to targets: what kind of target a list has, its classes or values, and each video's own.

A list says which kind it is by one rule (`_task_of`); of what can be meant in two ways an error says how to say it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch

from timesformer_zoo.data.annotations import Row, class_key
from timesformer_zoo.data.tables import COLUMNS
from timesformer_zoo.errors import AnnotationError
from timesformer_zoo.words import counted

__all__ = ["TASKS", "Target", "Task", "Understood", "understand"]

Target = int | tuple[int, ...] | tuple[float, ...]
"""A class's index; or those of the labels that are there, in order; or values."""

_MOST_CLASSES = 100_000  # more indices than that are ids
_INDICES = re.compile(r"\d+(\s*[,;|]\s*\d+)*")
_FLAGS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
_LABELS = (*COLUMNS["label"], *COLUMNS["name"], *COLUMNS["target"])


class Understood(NamedTuple):
    """What a list's rows are."""

    task: str
    classes: tuple[str, ...]  # names of the classes, labels or values
    rows: Sequence[Row]  # those that were given; of several for one video, where it may have several labels, the first
    targets: list[Target]  # a row's each
    notes: tuple[str, ...]  # what may surprise


class _Reader(NamedTuple):
    """How one kind of target is read: what is given to all of them."""

    rows: Sequence[Row]
    names: tuple[str, ...] | None  # given by the user, or the data set's own
    where: str  # the list, for errors
    data: str  # the data set's name, likewise

    def error(self, text: str) -> AnnotationError:
        return AnnotationError(f"{self.where}: {text}")

    def no_label(self, row: Row) -> AnnotationError:
        return self.error(
            f"expected a column {' or '.join(_LABELS[:6])} in each row, got {str(dict(row.record))[:200]}."
            + (' A video without labels is for task="multilabel".' if self.others() else "")
        )

    def others(self) -> list[str]:
        """The columns that are none of those known, in their order."""
        known = {name for names in COLUMNS.values() for name in names}
        return [name for name in (self.rows[0].record if self.rows else ()) if name not in known]

    def cells(self, name: str) -> list[str]:
        return ["" if (cell := row.record.get(name)) is None else str(cell).strip() for row in self.rows]

    def columns(self, fits: Callable[[str], bool], expected: str) -> list[str]:
        """The other columns that hold nothing else; with names, theirs, or none if no column is called so."""
        by_key = {class_key(name): name for name in self.others()}
        keys = [class_key(name) for name in self.names or ()]
        if any(key in by_key for key in keys):
            if absent := [name for name, key in zip(self.names or (), keys, strict=True) if key not in by_key]:
                raise self.error(f"no column {absent[0]!r}; it has {_some(self.others())}")
            for name in (by_key[key] for key in keys):
                if wrong := [cell for cell in self.cells(name) if not fits(cell)]:
                    raise self.error(f"column {name!r} has {wrong[0]!r}, expected {expected}")
            return [by_key[key] for key in keys]
        if keys:
            return []
        return [name for name in self.others() if all(map(fits, self.cells(name)))]


def understand(
    rows: Sequence[Row], names: tuple[str, ...] | None, task: str | None, where: str, data: str
) -> Understood:
    """The targets of the rows, in their order.

    Args:
        rows: of one list.
        names: of the classes or values, by index; None: those that occur.
        task: kind of target; None: as the list says.
        where: the list, for errors.
        data: the data set's name, likewise.

    Raises:
        AnnotationError: it can be meant in two ways, or is not of that kind.
    """
    # pandas writes whole numbers with a point where a column has gaps
    whole = re.compile(r"^(\d+)\.0+$")
    rows = [r._replace(label=whole.sub(r"\1", r.label)) if isinstance(r.label, str) else r for r in rows]
    reader = _Reader(rows, names, where, data)
    notes = []
    if task is None:
        task, why = _task_of(reader)
        notes = [f"taken as {task}: {why}"] if why else []
    classes, targets, note = TASKS[task].read(reader)
    notes += [note] if note else []
    if (join := TASKS[task].join) is not None:
        joined: dict[Any, tuple[Row, list[Any]]] = {}
        for row, target in zip(rows, targets, strict=True):
            joined.setdefault(row.places, (row, []))[1].append(target)
        if len(joined) < len(rows):
            more = counted(len(rows) - len(joined), "rows")
            notes.append(f"{more} of a video that another row has, too: the labels of such rows are joined")
        rows, targets = [row for row, _ in joined.values()], [join(parts) for _, parts in joined.values()]
    return Understood(task, classes, rows, targets, tuple(notes))


def _task_of(reader: _Reader) -> tuple[str, str]:
    """The kind of target that a list has, and why, where it is not the plain one: a class for each video.

    - Several indices in a row ("0,2"), JSON lists, several numbered columns (label_1, label_2), or no column of labels
      but two or more of nothing but 0 and 1: multilabel.
    - Numbers, some with decimals, as labels: regression.
    - Names with ; or | in them, and columns of other numbers, may be meant in two ways.
    """
    labels = [row.label for row in reader.rows if row.label is not None]
    texts = [label for label in labels if isinstance(label, str)]
    if len(texts) < len(labels):
        return "multilabel", "its rows have lists of labels"
    if not texts and not any(name in row.record for row in reader.rows for name in _LABELS):
        columns = reader.columns(_is_number, "numbers")
        if len(columns) > 1 and all(_is_flag(cell) for name in columns for cell in reader.cells(name)):
            return "multilabel", f"{len(columns)} columns of 0 and 1, {_some(columns)}"
        if columns:
            raise reader.error(
                f"no column of labels ({', '.join(_LABELS[:3])} …), but numbers in {_some(columns)}: say "
                'task="regression" (--task) to take them as values, "multilabel" to take those of 0 and 1 as labels.'
            )
    known = {class_key(name) for name in reader.names or ()}
    if not texts or known.issuperset(map(class_key, texts)):
        return "classes", ""
    if all(map(_INDICES.fullmatch, texts)) and not all(map(str.isdecimal, texts)):
        several = next(text for text in texts if not text.isdecimal())
        return "multilabel", f"several indices in a row, such as {several!r}"
    if all(map(_is_number, texts)) and not all(float(text).is_integer() for text in texts):
        return "regression", f"numbers with decimals as labels, such as {_fraction(texts)}"
    if joined := [text for text in texts if re.search(r"[;|]", text)]:
        raise reader.error(
            f'label {joined[0]!r} may be one class or several labels: say task="classes" or task="multilabel" (--task).'
        )
    return "classes", ""


def _fraction(texts: Iterable[str]) -> str:
    return next(text for text in texts if not float(text).is_integer())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (" …" if len(names) > 4 else "")


def _columns(names: Sequence[str]) -> str:
    return f"{counted(len(names), 'columns')}, {_some(names)}"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_flag(text: str) -> bool:
    return text.lower() in _FLAGS


# ---- a class for each video ----

_Read = tuple[tuple[str, ...], list[Any], str]  # names, targets, and what may surprise


def _read_classes(reader: _Reader) -> _Read:
    for row in reader.rows:
        if row.label is None:
            raise reader.no_label(row)
        if not isinstance(row.label, str):
            raise reader.error(f'expected one label for each video, got {list(row.label)}; several are "multilabel".')
    classes = reader.names if reader.names is not None else _classes_of(reader)
    by_key = {class_key(name): i for i, name in enumerate(classes)}
    return classes, [_index(str(row.label), by_key, classes, reader.data) for row in reader.rows], ""


def _classes_of(reader: _Reader) -> tuple[str, ...]:
    """Without names: those that occur, by the indices beside them or sorted, or as many as the largest index needs."""
    rows = reader.rows
    labels = {str(row.label) for row in rows}
    if labels and all(label.isdecimal() for label in labels):
        return tuple(map(str, range(_count(max(map(int, labels)), reader))))
    if any(re.fullmatch(r"-\d+", label) for label in labels):
        raise reader.error("there are labels below 0; expected indices from 0, or class names.")
    if any(row.target is None for row in rows):
        return tuple(sorted(labels))
    names: dict[int, str] = {}
    for row in rows:
        if row.target is not None and names.setdefault(row.target, str(row.label)) != row.label:
            raise reader.error(f"index {row.target} is {names[row.target]!r} and {row.label!r}; expected one.")
    return tuple(names.get(i, f"class {i}") for i in range(_count(max(names, default=-1), reader)))


def _count(largest: int, reader: _Reader) -> int:
    if largest >= _MOST_CLASSES:
        raise reader.error(f"a label is {largest}, expected indices from 0; if they are ids, list `labels`.")
    return largest + 1


def _index(label: str, by_key: dict[str, int], classes: Sequence[str], data: str) -> int:
    index = by_key.get(class_key(label))
    if index is None and label.isdecimal():
        index = int(label)
    if index is None or index >= len(classes):
        shown = ", ".join(map(repr, classes[:5])) + (", ..." if len(classes) > 5 else "")
        raise AnnotationError(
            f"{data}: label {label!r} is not among the {counted(len(classes), 'classes')}: {shown}. Check `labels`"
            + (", and whether indices start at 0." if index == len(classes) else ".")
        )
    return index


# ---- any number of labels for each video ----


def _read_labels(reader: _Reader) -> _Read:
    if all(row.label is None for row in reader.rows) and (columns := reader.columns(_is_flag, "0 or 1")):
        flags = [[_FLAGS[cell.lower()] for cell in reader.cells(name)] for name in columns]
        targets = [tuple(i for i, flag in enumerate(row) if flag) for row in zip(*flags, strict=True)]
        return (
            tuple(reader.names or columns),
            targets,
            f"a label for each of {_columns(columns)}",
        )
    known = {class_key(name) for name in reader.names or ()}
    texts = [row.label for row in reader.rows if isinstance(row.label, str) and class_key(row.label) not in known]
    separators = r"[;|]" if any(re.search(r"[;|]", text) for text in texts) else ","
    labels: list[list[str]] = []
    for row in reader.rows:
        parts = row.label or ()
        if isinstance(parts, str):
            parts = (parts,) if class_key(parts) in known else tuple(re.split(separators, parts))
        labels.append([part.strip() for part in parts if part.strip()])
    distinct = {label for row in labels for label in row}
    if reader.names is not None:
        classes = reader.names
    elif distinct and all(map(str.isdecimal, distinct)):
        classes = tuple(map(str, range(_count(max(map(int, distinct)), reader))))
    else:
        classes = tuple(sorted(distinct))
    by_key = {class_key(name): i for i, name in enumerate(classes)}
    return (
        classes,
        [tuple(sorted({_index(label, by_key, classes, reader.data) for label in row})) for row in labels],
        "",
    )


# ---- values for each video ----


def _read_values(reader: _Reader) -> _Read:
    numbers = [_numbers(row.label) for row in reader.rows]
    columns = reader.columns(_is_number, "a number")
    if columns and (reader.names or not all(numbers)):
        cells = [list(map(float, reader.cells(name))) for name in columns]
        return (
            reader.names or tuple(columns),
            list(zip(*cells, strict=True)),
            f"values of {_columns(columns)}",
        )
    count = len(reader.names or (numbers[0] if numbers else ()))
    for row, values in zip(reader.rows, numbers, strict=True):
        if row.label is None:
            raise reader.no_label(row)
        if not values or len(values) != count:
            wanted = f"{count} numbers" if count > 1 else "a number"
            raise reader.error(f"{row.places[0].name}: expected {wanted} as its label, got {row.label!r}.")
    column = next((name for name in _LABELS for row in reader.rows[:1] if name in row.record), "value")
    names = reader.names or ((column,) if count == 1 else tuple(f"{column} {i}" for i in range(count)))
    return names, numbers, ""


def _numbers(label: str | tuple[str, ...] | None) -> tuple[float, ...]:
    """What a label says in numbers; nothing where it says anything else."""
    parts = [part for part in re.split(r"[;,|\s]+", label) if part] if isinstance(label, str) else label or ()
    return tuple(map(float, parts)) if all(map(_is_number, parts)) else ()


# ---- the kinds ----


class Task(NamedTuple):
    """One kind of target."""

    read: Callable[[_Reader], _Read]
    tensor: Callable[[Any, int], torch.Tensor]  # a sample's target, number of classes -> what the loss takes
    label: Callable[[Any, Sequence[str]], Any]  # a sample's target, names -> the target by name
    join: Callable[[list[Any]], Any] | None  # targets of several rows of one video -> its target; None: each is its own
    things: str  # what the names are of
    about: str


def _multi_hot(indices: Sequence[int], size: int) -> torch.Tensor:
    hot = torch.zeros(size)
    hot[list(indices)] = 1.0
    return hot


TASKS: dict[str, Task] = {
    "classes": Task(
        _read_classes,
        lambda index, _: torch.tensor(index),
        lambda index, names: names[index],
        None,
        "classes",
        "a class for each video",
    ),
    "multilabel": Task(
        _read_labels,
        _multi_hot,
        lambda indices, names: tuple(names[i] for i in indices),
        lambda several: tuple(sorted({i for indices in several for i in indices})),
        "labels",
        "any number of labels for each video",
    ),
    "regression": Task(
        _read_values,
        lambda values, _: torch.tensor(values),
        lambda values, names: dict(zip(names, values, strict=True)),
        None,
        "values",
        "one or more numbers for each video",
    ),
}
