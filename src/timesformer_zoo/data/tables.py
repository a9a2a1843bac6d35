"""From an annotation file to records: JSON, tables with a header, lists without one, in any usual encoding.

Where a line can be read in several ways, the one whose video exists is meant; what nobody can tell is an error that
names the line.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from timesformer_zoo.data.index import has_video_suffix
from timesformer_zoo.errors import AnnotationError
from timesformer_zoo.words import counted

__all__ = ["COLUMNS", "column_name", "parse_json", "read_list", "read_records", "read_text"]

Record = dict[str, Any]
Exists = Callable[[str], bool]  # whether there is a video of that name

# What columns are called, in order of preference, in lower case and with _ for what separates words.
COLUMNS: dict[str, tuple[str, ...]] = {
    "video": (
        *("path", "video_path", "file_path", "filepath", "clip_path", "file", "file_name", "filename", "video_name"),
        *("video", "clip", "clip_name", "name", "vid_name", "video_id", "youtube_id", "vid", "id"),
    ),
    "label": ("label", "class", "action", "template", "category", "task_id", "labels"),
    "name": ("class_name", "label_name", "action_name", "label_text"),
    "target": (
        *("target", "label_id", "class_id", "label_idx", "class_idx", "label_index", "class_index", "action_id"),
        "label_num",
    ),
    "split": ("split", "subset", "partition", "set"),
    "start": ("start", "time_start", "start_time"),
    "end": ("end", "time_end", "end_time"),
}
_SEPARATORS = "\t;,| "  # the rarer ones in names and labels first
_KNOWN = frozenset(name for names in COLUMNS.values() for name in names)
# Several columns of labels: label_1, label_2 …
_NUMBERED = re.compile(f"({'|'.join((*COLUMNS['label'], *COLUMNS['target'], *COLUMNS['name']))})_?\\d+")


def _nothing(name: str) -> bool:
    return False


def read_text(path: Path, notes: list[str] | None = None) -> str:
    """The text of a file, with \\n between lines: UTF-8 or UTF-16, else cp1252, which a line in `notes` then says.

    Raises:
        AnnotationError: it can't be read, or is no text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror}).") from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    elif b"\0" in data:  # UTF-16 without a mark: every other byte of ASCII is 0
        encodings = ["utf-16-le" if data[1:2] == b"\0" else "utf-16-be"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding == "cp1252" and notes is not None:
            notes.append(f"{path.name} is no UTF-8: read as cp1252; save it as UTF-8 if names look wrong")
        if "\0" not in text:
            return text.replace("\r\n", "\n").replace("\r", "\n")
    raise AnnotationError(f"{path}: neither UTF-8 text, nor UTF-16, nor cp1252; save it as UTF-8 text.")


def parse_json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise AnnotationError(f"{path}: not JSON ({error}).") from error


def read_records(
    path: Path, exists: Exists = _nothing, notes: list[str] | None = None, several: bool = False
) -> list[Record]:
    """The rows of an annotation file by column name.

    - JSON: objects in a list, or by the video's id (column "id"), or labels by it, or any of these by split (column
      "split"); JSON lines.
    - A table with a header: names of columns that are known are given in lower case, with _ for what separates words,
      others as they are. Columns label_1, label_2 … become one, "label", a list of what they hold, unless that is 0 and
      1 alone. Without a column of labels, it is a table if all columns but the video's hold numbers.
    - A list without header, as `read_list` reads it: columns "path" and "label".

    Args:
        exists: whether a video is called so, to tell apart what would else be guessed.
        notes: gets lines about what the user might not expect.
        several: a line may have any number of labels, with a separator between them.

    Raises:
        AnnotationError: the file cannot be read as such.
    """
    text = read_text(path, notes)
    if path.suffix.lower() in (".json", ".jsonl", ".ndjson"):
        return [{column_name(key): value for key, value in row.items()} for row in _json_rows(path, text)]
    lines = _Lines(path, text, exists, notes, several)
    plain = [line for _, line in lines.numbered if not line.startswith("#")]
    header = _header(plain)
    if header is None:
        return [{"path": name, "label": label} for name, label in lines.entries()]
    separator, columns = header
    known = [column for names in COLUMNS.values() for column in names if column in columns]
    if twice := [column for column in known if columns.count(column) > 1]:
        raise AnnotationError(f"{path}: two columns are called {twice[0]!r}; rename one.")
    labels = (*COLUMNS["label"], *COLUMNS["name"], *COLUMNS["target"])
    if len(columns) == 2 and columns[0] in COLUMNS["video"] and columns[1] in labels:
        lines.numbered.remove(next(line for line in lines.numbered if line[1] == plain[0]))
        return [dict(zip(columns, entry, strict=True)) for entry in lines.entries(separator)]
    return _join_numbered(list(_table_rows(path, text, separator, columns, exists)))


def read_list(path: Path, exists: Exists = _nothing, notes: list[str] | None = None) -> list[tuple[str, str]]:
    """(path, label) of each line of a list without header: `path label`, with a space, comma, semicolon, tab or bar.

    Paths and labels may hold separators: a path ends where a video of that name exists, or at its suffix, else at the
    last separator. `folder frames label`, for folders of frames, is read, too, and `label,path`. Fields may be in
    double quotes. Empty lines are not counted, nor are those that start with #, unless their video exists.

    Args: as `read_records`.

    Raises:
        AnnotationError: a line that does not split into a path and one label.
    """
    return _Lines(path, read_text(path, notes), exists, notes).entries()


def _json_rows(path: Path, text: str) -> list[Record]:
    lines = [line for line in text.split("\n") if line.strip()]
    try:
        content: Any = json.loads(text)
    except (json.JSONDecodeError, RecursionError):  # JSON lines, whatever the suffix says
        content = [parse_json(path, line) for line in lines] if len(lines) > 1 else parse_json(path, text)
    if path.suffix.lower() != ".json" and len(lines) == 1:
        content = [content]

    if isinstance(content, dict) and content and all(map(_is_rows, content.values())):
        content = [
            {"split": key, **row} if isinstance(row, dict) else row for key, rows in content.items() for row in rows
        ]
    elif isinstance(content, dict) and all(isinstance(value, dict) for value in content.values()):
        content = [{"id": key, **value} for key, value in content.items()]
    elif isinstance(content, dict) and not any(isinstance(v, dict) or (v and _is_rows(v)) for v in content.values()):
        content = [{"id": key, "label": value} for key, value in content.items()]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise AnnotationError(
            f"{path}: expected a list of objects, or an object of objects or labels, got {str(content)[:80]!r}."
        )
    return content


def _is_rows(value: Any) -> bool:
    """Whether it is a list, but none of labels."""
    return isinstance(value, list) and (not value or any(isinstance(row, (dict, list)) for row in value))


def column_name(text: Any) -> str:
    name = re.sub(r"\W+", "_", str(text).strip().lower()).strip("_")
    return name if name in _KNOWN or _NUMBERED.fullmatch(name) else str(text).strip()


def _header(lines: Sequence[str]) -> tuple[str, list[str]] | None:
    """(separator, column names) of a first line that names a column for the video and another that is known.

    Or only that of the video; or others, with nothing but numbers below them.
    """
    for separator in _SEPARATORS if lines else "":
        cells = next(_cells(lines[0], separator))
        columns = [column_name(cell) for cell in cells]
        if not set(columns) & set(COLUMNS["video"]):
            continue
        known = [column for column in columns if column in _KNOWN or _NUMBERED.fullmatch(column)]
        if (len(columns) == 1 and separator == " ") or len(known) > 1:
            return separator, columns
        below = [next(_cells(line, separator)) for line in lines[1:20]]
        others = [i for i, column in enumerate(columns) if column not in known]
        if others and below and all(len(row) == len(columns) for row in below):
            numbers = all(not row[i].strip() or _is_number(row[i]) for row in below for i in others)
            if numbers and not any(_is_number(columns[i]) for i in others):
                return separator, columns
    return None


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", text) is not None


def _join_numbered(records: list[Record]) -> list[Record]:
    """Columns label_1, label_2 … as one, "label", a list; they stay as they are where they hold 0 and 1 alone."""
    names = [name for name in (records[0] if records else ()) if _NUMBERED.fullmatch(name) and name not in _KNOWN]
    if len(names) < 2 or all(str(record.get(name, "")).strip() in ("0", "1") for record in records for name in names):
        return records
    return [
        {
            **{k: v for k, v in r.items() if k not in names},
            "label": [r[n].strip() for n in names if r.get(n, "").strip()],
        }
        for r in records
    ]


def _cells(line: str, separator: str) -> Iterator[list[str]]:
    """The fields of a line; where it has double quotes, first as csv means them, then as plain characters."""
    if '"' in line:
        with contextlib.suppress(csv.Error):
            yield next(csv.reader([line], delimiter=separator, skipinitialspace=separator != " ", strict=True))
    yield line.split(separator)


def _table_rows(path: Path, text: str, separator: str, columns: list[str], exists: Exists) -> Iterator[Record]:
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=separator != " ", strict=True)
    named = False
    video = next(column for column in COLUMNS["video"] if column in columns)
    try:
        for cells in reader:
            record = dict(zip(columns, cells, strict=False))
            if not any(cell.strip() for cell in cells):
                continue
            if cells[0].startswith("#") and (len(cells) != len(columns) or not exists(record[video].strip())):
                continue
            if not named:  # the header
                named = True
                continue
            extra = [cell for cell in cells[len(columns) :] if cell.strip()]
            broken = [c for c, v in record.items() if "\n" in v and any(c in names for names in COLUMNS.values())]
            if extra or broken:
                raise AnnotationError(
                    f"{path}, line {reader.line_num}: expected {len(columns)} fields ({', '.join(columns)}), got "
                    f"{separator.join(cells)[:100]!r}; put a field that holds the separator in double quotes."
                )
            yield record
    except csv.Error as error:
        raise AnnotationError(f"{path}, line {reader.line_num}: {error}; check the double quotes.") from error


class _Entry(NamedTuple):
    name: str
    label: str
    found: bool  # whether the video exists, where that was asked


class _Lines:
    """The lines of a list that are not empty, and what they say."""

    def __init__(self, path: Path, text: str, exists: Exists, notes: list[str] | None, several: bool = False) -> None:
        self.path, self.exists, self.notes, self.several = path, exists, notes, several
        lines = enumerate((line.strip() for line in text.split("\n")), start=1)
        self.numbered = [(number, line) for number, line in lines if line]

    def entries(self, separators: str = _SEPARATORS) -> list[tuple[str, str]]:
        """(path, label) of each line."""
        plain = [(number, line) for number, line in self.numbered if not line.startswith("#")]
        plain = plain or [(n, line) for n, line in self.numbered if self._is_entry(line, separators)]
        if not plain:
            return []
        separator = max(separators, key=lambda s: self._fit([line for _, line in plain], s))
        entries, comments = [], 0
        for number, line in self.numbered:
            comment = line.startswith("#")
            entry = self._entry(0 if comment else number, line, separator)
            if comment and (entry is None or not self.exists(entry.name)):
                comments += entry is not None and has_video_suffix(entry.name)
                continue
            if entry is None:
                raise AnnotationError(
                    f"{self.path}, line {number}: expected 'path label' or 'path,label', got {line[:100]!r}; a list "
                    f"has a path and a label, an index or a class name, on each line; in one where a video may have "
                    f'none, say task="multilabel" (--task).'
                )
            entries.append((entry.name, entry.label))
        if comments and self.notes is not None:
            lines = counted(comments, "lines")
            self.notes.append(f"{self.path.name}: {lines} with # at the start and no video's name: taken as comments")
        if all(has_video_suffix(label) and not has_video_suffix(name) for name, label in entries):
            return [(name, label) for label, name in entries]
        return entries

    def _is_entry(self, line: str, separators: str) -> bool:
        entries = (self._entry(0, line, separator) for separator in separators)
        return any(entry is not None and self.exists(entry.name) for entry in entries)

    def _fit(self, lines: Sequence[str], separator: str) -> tuple[float, ...]:
        """How well a separator splits the lines: into names of videos, all of them, with indices as labels."""
        entries = [self._entry(0, line, separator) for line in lines[:20]]
        videos = sum(e is not None and (has_video_suffix(e.name) or self.exists(e.name)) for e in entries)
        ends = [line.rpartition(separator)[2] for line in lines if separator in line]
        return videos, len(ends), all(map(str.isdecimal, ends))

    def _entry(self, number: int, line: str, separator: str) -> _Entry | None:
        """What a line says; number: its own, for errors, or 0 where it is only tried."""
        ways: list[_Entry] = []
        for cells in _cells(line, separator):
            splits = [(separator.join(cells[:i]).strip(), cells[i:]) for i in range(len(cells) - 1, 0, -1)]
            splits = [(name, rest) for name, rest in splits if name and any(cell.strip() for cell in rest)]
            asked = len(splits) > 1 or '"' in line  # of one way there is nothing to tell apart
            found = next((s for s in splits if self.exists(s[0])), None) if asked else None
            with_suffix = (s for s in splits if has_video_suffix(s[0]))
            if splits:
                name, rest = found or next(with_suffix, splits[0])
                ways.append(_Entry(name, self._label(number, line, name, rest, separator), found is not None))
            elif self.several and (name := "".join(cells).strip()) and (has_video_suffix(name) or self.exists(name)):
                ways.append(_Entry(name, "", self.exists(name)))
        return next((way for way in ways if way.found), ways[0] if ways else None)

    def _label(self, number: int, line: str, name: str, rest: list[str], separator: str) -> str:
        shown = [cell.strip() for cell in rest if cell.strip()]
        if not all(cell.isdecimal() for cell in shown):
            return separator.join(rest).strip(separator + " ")
        if len(shown) == 1:
            return shown[0]
        if self.several and (has_video_suffix(name) or self.exists(name)):
            return ";".join(shown)
        if number and (has_video_suffix(name) or len(shown) > 2):  # else: a folder, how many frames, the label
            raise AnnotationError(
                f"{self.path}, line {number}: expected one label for {name}, got {' and '.join(shown)}; only a list of "
                f"folders of frames has another number, 'folder frames label'; where a video may have several, say "
                f'task="multilabel" (--task).'
            )
        return shown[-1]
