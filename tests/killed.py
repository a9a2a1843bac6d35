"""The command, killed at random moments and on full and read-only disks: what it leaves, and whether it then completes.

    with Command() as command:
        whole = command(["convert", "in", "out", "--to", "native"], output)     # how long, how many events
        command([...], output, seconds=0.3)                                     # killed after so long
        command([...], output, event=17)                                        # killed at its 17th event

One process imports the package and forks for each run, so that a run takes a fraction of a second. An event is what
Python tells an audit hook of the file system: files opened, renamed, linked, removed; folders made.
"""

import json
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file

EVENTS = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
LIMIT = 300  # seconds, of a run


class Run(NamedTuple):
    """How a run of the command ended."""

    status: int  # negative: the signal that killed it
    seconds: float
    events: int
    errors: str  # what it said on stderr


class Command:
    """A context manager that runs the command; in `env`, where it is given."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self.env = dict(env or {})

    def __enter__(self) -> "Command":
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        before = dict(os.environ)
        os.environ.update(self.env)  # read when the Hub's client is imported
        try:
            self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self.process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        return self

    def __exit__(self, *exception: object) -> None:
        self.connection.send(None)
        self.process.join(LIMIT)

    def __call__(
        self,
        arguments: Sequence[str],
        output: Path | None = None,
        *,
        seconds: float | None = None,
        event: int | None = None,
        errors: Path,
    ) -> Run:
        """Run it.

        Args:
            arguments: of the command.
            output: where its standard output goes; None: nowhere.
            seconds, event: when it is killed; None: not by that.
            errors: where its standard error goes.
        """
        self.connection.send((list(arguments), output and str(output), seconds, event, str(errors)))
        return Run(*self.connection.recv(), errors.read_text("utf-8", "replace"))


def _serve(connection: Any) -> None:
    """Forks for each message until there are no more."""
    import accelerate  # noqa: F401
    import huggingface_hub.hf_api  # noqa: F401

    import timesformer_zoo.cli.convert
    import timesformer_zoo.cli.embed
    import timesformer_zoo.cli.evaluate
    import timesformer_zoo.cli.finetune
    import timesformer_zoo.cli.push
    import timesformer_zoo.cli.timeline  # noqa: F401

    torch.set_num_threads(1)
    while (message := connection.recv()) is not None:
        seconds = message[2]
        count = multiprocessing.get_context("fork").Value("q", 0, lock=False)
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            _run(*message, count)
        limit = LIMIT if seconds is None else seconds
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() - start > limit:
                os.kill(child, signal.SIGKILL)
                ended = os.waitpid(child, 0)
                break
            time.sleep(0.001)
        connection.send((os.waitstatus_to_exitcode(ended[1]), time.monotonic() - start, count.value))


def _run(arguments: list[str], output: str | None, _: float, event: int | None, errors: str, count: Any) -> None:
    from timesformer_zoo_cli import main

    def hook(name: str, details: tuple[Any, ...]) -> None:
        # Of "open", those that may write: reading is most of what is opened, and killing there changes nothing.
        if name in EVENTS and (
            name != "open" or (isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR))
        ):
            if count.value == event:
                os.kill(os.getpid(), signal.SIGKILL)
            count.value += 1

    for number, path in ((1, output or os.devnull), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
    sys.addaudithook(hook)
    status = 70  # of an exception
    try:
        status = main(arguments)
        sys.stdout.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


# ---- what is there ----


def files_in(folder: Path) -> Iterator[Path]:
    """The files that have their final names; what is being written lies in folders of other names."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        being_written = path.suffix == ".partial" or any(part.startswith((".partial", "partial-")) for part in parts)
        if path.is_file() and not being_written:
            yield path


def damage(folder: Path) -> list[str]:
    """What is wrong with the files that have their final names: those that do not load to their ends."""
    wrong = []
    for path in files_in(folder):
        try:
            if path.suffix == ".safetensors":
                load_file(path)
            elif path.suffix == ".json":
                json.loads(path.read_text("utf-8"))
            elif path.suffix == ".jsonl":
                lines = path.read_text("utf-8").splitlines(keepends=True)
                assert all(line.endswith("\n") and json.loads(line) for line in lines)
            elif path.suffix in (".bin", ".pkl"):
                torch.load(path, weights_only=False)
            elif path.suffix == ".md":
                assert path.read_text("utf-8").endswith("```\n")
            elif path.suffix == ".csv":
                assert path.read_bytes().endswith(b"\r\n")
            elif path.suffix == ".html":
                assert path.read_text("utf-8").endswith("</html>\n")
            elif path.suffix == ".png":
                assert path.read_bytes().endswith(b"IEND\xaeB`\x82")
        except Exception as error:
            wrong.append(f"{path}: {type(error).__name__} {error}")
    return wrong


def contents(folder: Path, leave_out: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Names and bytes of all files that have their final names, but for those in folders to be left out.

    Rows of many files are one: which part has which depends on when a run was killed.
    """
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files_in(folder)}
    parts = [name for name in found if re.search(r"(^|/)part-\d+\.jsonl$", name)]
    if parts:
        found["rows"] = b"".join(sorted(b"".join(map(found.pop, parts)).splitlines(keepends=True)))
    return {name: content for name, content in found.items() if not name.startswith(leave_out)}
