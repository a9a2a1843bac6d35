"""The tables of RESULTS.md: what a script measures is rows of data, and this runs them and writes them down.

A table has a section in RESULTS.md between two markers. `--write` replaces the rows that were measured; the others stay
if they come from the same machine and versions, and are emptied if not.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["RESULTS", "Table", "environment", "read_rows", "run", "write_section"]

RESULTS = Path(__file__).parent / "RESULTS.md"
PACKAGES = ("torch", "timm", "transformers", "decord", "torchao")


@dataclass(frozen=True)
class Table:
    """One table: its rows are named entries of data, and `measure` turns an entry into the row's cells."""

    name: str  # of its section
    columns: tuple[str, ...]  # after the row's name
    rows: Mapping[str, Any]
    measure: Callable[[Any, Namespace], Sequence[str]]
    estimate: Callable[[Any, Namespace], float]  # seconds that a row takes, roughly
    short: tuple[str, ...] = ()  # the rows that matter most, for --short


def run(
    description: str | None,
    tables: Sequence[Table],
    argv: Sequence[str] | None = None,
    rounds: int = 5,
    add_arguments: Callable[[ArgumentParser], Any] = lambda parser: None,
) -> dict[str, dict[str, Sequence[str]]]:
    """A benchmark's command line: choose rows, say how long they take, measure, print, and if asked write.

    Args:
        description: the script's docstring.
        rounds: default of --rounds.
        add_arguments: adds the script's own options.

    Returns:
        For each table, the cells of each row that was measured.
    """
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--rows", metavar="PATTERN", default="*", help="rows by name, with * (default: all)")
    parser.add_argument("--tables", metavar="PATTERN", default="*", help="tables by name, with * (default: all)")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"turns of each measurement (default: {rounds})")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one turn: does it run?")
    parser.add_argument("--short", action="store_true", help="only the rows that matter most")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no row after as many")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the rows there, as JSON, after each row")
    parser.add_argument(
        "--from", type=Path, metavar="FILE", dest="source", help="measure nothing: rows of --out's file"
    )
    parser.add_argument("--dry-run", action="store_true", help="measure nothing: how long would it take?")
    parser.add_argument("--write", action="store_true", help=f"put the rows into {RESULTS.name}")
    add_arguments(parser)
    options = parser.parse_args(argv)
    chosen = {table.name: table for table in tables if fnmatch(table.name, options.tables)}
    rows = {
        name: [row for row in (table.short if options.short else table.rows) if fnmatch(row, options.rows)]
        for name, table in chosen.items()
    }
    if not any(rows.values()):
        known = "; ".join(f"{table.name}: {', '.join(table.rows)}" for table in tables)
        parser.error(f"no row matches --tables {options.tables!r} --rows {options.rows!r}. There are: {known}")
    if options.write and options.quick:
        parser.error("--quick measures tiny sizes, which are no results: leave out --write")
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.quick:
        options.rounds = 1
    else:
        _print_estimate(chosen, rows, options)
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *(sys.argv[1:] if argv is None else argv)])
    measured: dict[str, dict[str, Sequence[str]]] = {name: {} for name in chosen}
    if options.source:
        saved = json.loads(options.source.read_text())
        for name, table in chosen.items():
            measured[name] = saved.get(name, {})
            print("\n".join(_lines(table, measured[name])), end="\n\n")
            if options.write and measured[name]:
                write_section(RESULTS, table, measured[name], *(saved[key] for key in ("command", "machine", "day")))
        return measured
    begin = time.perf_counter()
    for name, table in chosen.items():
        if options.dry_run and options.write:  # new rows appear, empty; old results stay
            write_section(RESULTS, table, {}, command)
        for row in [] if options.dry_run else rows[name]:
            start = time.perf_counter()
            if start - begin > 60 * options.minutes:
                print(f"{name}: {row}: not measured, {options.minutes:g} minutes are over", file=sys.stderr)
                continue
            measured[name][row] = table.measure(table.rows[row], options)
            print(f"{name}: {row}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
            if options.out:
                about = dict(machine=environment(), day=str(date.today()), command=command)
                options.out.write_text(json.dumps(about | measured, indent=1))
            if options.write:  # after each row: a run that is stopped keeps what it has
                write_section(RESULTS, table, measured[name], command)
        if measured[name]:
            print("\n".join(_lines(table, measured[name])), end="\n\n")
    return measured


def _print_estimate(chosen: Mapping[str, Table], rows: Mapping[str, Sequence[str]], options: Namespace) -> None:
    total = 0.0
    for name, table in chosen.items():
        for row in rows[name]:
            expected = table.estimate(table.rows[row], options)
            total += expected
            print(f"  about {expected:6.0f} s  {name}: {row}", file=sys.stderr)
    print(f"about {total / 60:.0f} minutes together", file=sys.stderr)


def environment() -> str:
    """The machine and the versions that results depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())
    capability = torch.backends.cpu.get_cpu_capability()  # decides which product our inference takes
    machine = f"{cpu} ({capability}), {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        machine += f", {torch.cuda.get_device_name()}"
    versions = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    return f"{machine}; {', '.join(versions)}."


def write_section(
    path: Path,
    table: Table,
    measured: Mapping[str, Sequence[str]],
    command: str,
    machine: str | None = None,
    day: str | None = None,
) -> None:
    """Replace a table's section, keeping its other rows if they come from the same machine and versions.

    Args:
        machine, day: where and when it was measured; None for this one, today.

    Raises:
        ValueError: the file has no such section.
    """
    text = path.read_text()
    begin, end = f"<!-- begin {table.name} -->\n", f"<!-- end {table.name} -->"
    if begin not in text or end not in text:
        raise ValueError(f"{path} has no section {table.name!r}: add the lines {begin.strip()} and {end}")
    before, _, rest = text.partition(begin)
    section, _, after = rest.partition(end)
    rows = {row: [""] * (len(table.columns) + 1) for row in table.rows}
    machine = machine or environment()
    if machine in section:
        old = read_rows(section)
        rows |= {row: old[row] for row in rows if row in old and len(old[row]) == len(rows[row])}
    for row, cells in measured.items():
        rows[row] = [*cells, (day or str(date.today())) if any(cells) else ""]
    lines = _lines(table, rows, ("measured",))
    footer = ["", f"Machine: {machine} Last command: `{command}`", ""]
    path.write_text(before + begin + "\n".join(["", *lines, *footer]) + end + after)


def read_rows(section: str) -> dict[str, list[str]]:
    """The rows of a Markdown table: first cell -> the others."""
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]  # after head and rule
    return {row[0]: row[1:] for row in cells}


def _lines(table: Table, rows: Mapping[str, Sequence[str]], more: Sequence[str] = ()) -> list[str]:
    head = [table.name, *table.columns, *more]
    body = [[row, *cells] for row, cells in rows.items()]
    return ["| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *body]]
