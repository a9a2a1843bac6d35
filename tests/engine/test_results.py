"""Rows kept in a folder: each once, whatever happens to a run. By the local engine; `test_cluster.py` has Ray's."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from works import Length

from timesformer_zoo import OutputError, VideoReadError, WriteError, map_videos
from timesformer_zoo.engine import results

NAMES = [f"video{number}.mp4" for number in range(8)]


def rows_in(folder: Path) -> list[dict[str, Any]]:
    """As who reads it would."""
    assert not list(folder.glob("*.partial"))
    return [json.loads(line) for part in sorted(folder.glob("part-*.jsonl")) for line in part.read_bytes().splitlines()]


def test_without_a_folder_rows_come_one_by_one_in_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    rows = map_videos(Length(str(log)), ["b.mp4", Path("unreadable.mp4"), "a.mp4", "b.mp4"])
    assert next(rows) == {"path": "b.mp4", "length": 5}
    assert log.read_text() == "b.mp4\n"
    assert list(rows) == [
        {"path": "unreadable.mp4", "error": "unreadable.mp4: no video"},
        {"path": "a.mp4", "length": 5},
        {"path": "b.mp4", "length": 5},
    ]


def test_rows_of_an_engine_that_keeps_no_order_are_put_in_order() -> None:
    class Backwards:
        def run(self, work: Any, videos: Iterable[tuple[int, str]]) -> Iterator[tuple[int, dict[str, Any]]]:
            return ((number, {"path": path}) for number, path in reversed(list(videos)))

    rows = map_videos(Length(), NAMES, engine=Backwards())
    assert [row["path"] for row in rows] == NAMES


def test_a_rerun_does_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_ROWS", 3)
    out, log = tmp_path / "out", tmp_path / "log"
    first = list(map_videos(Length(), [*NAMES[:4], "unreadable.mp4", NAMES[0]], out=out))
    assert [row["path"] for row in first] == [*NAMES[:4], "unreadable.mp4"]
    assert [part.name for part in sorted(out.glob("part-*"))] == ["part-00000.jsonl", "part-00001.jsonl"]
    second = list(map_videos(Length(str(log)), ["unreadable.mp4", *NAMES], out=out))
    assert log.read_text().split() == NAMES[4:]
    assert rows_in(out) == first + second
    assert not list(map_videos(Length(), NAMES, out=out))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves that was killed in its fifth video."""
    out = tmp_path_factory.mktemp("killed") / "out"
    script = f"""
from works import Length
from timesformer_zoo import map_videos
list(map_videos(Length(), {[*NAMES[:4], "killer.mp4", *NAMES[4:]]}, out={str(out)!r}))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment)
    assert done.returncode == -signal.SIGKILL
    return out


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has none")
@pytest.mark.parametrize("torn", [b"", b'{"path": "video6.mp4", "len', b'{"path": "video6.mp4", "len\0\0\0\n'])
def test_a_killed_run_leaves_nothing_twice_and_nothing_half(torn: bytes, killed: Path, tmp_path: Path) -> None:
    out, log = Path(copytree(killed, tmp_path / "out")), tmp_path / "log"
    (partial,) = out.glob("*.partial")
    assert not list(out.glob("part-*.jsonl"))
    with partial.open("ab") as file:
        file.write(torn)
    list(map_videos(Length(str(log)), NAMES, out=out))
    assert log.read_text().split() == NAMES[4:]
    assert rows_in(out) == list(map_videos(Length(), NAMES))


def test_an_error_ends_the_run_and_leaves_what_is_done(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"too_large.mp4: .*out of memory"):
        list(map_videos(Length(), [*NAMES[:2], "too_large.mp4", NAMES[2]], out=tmp_path))
    assert [row["path"] for row in rows_in(tmp_path)] == NAMES[:2]


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit of a file's size")
def test_a_full_disk_leaves_nothing_half(tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # two rows and a half
    try:
        with pytest.raises(
            WriteError, match=r"out could not be written: File too large \(.* are free there\); free some"
        ):
            list(map_videos(Length(), NAMES, out=tmp_path / "out"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(Path(tmp_path, "out").glob("part-*.jsonl"))
    list(map_videos(Length(), NAMES, out=tmp_path / "out"))
    assert rows_in(tmp_path / "out") == list(map_videos(Length(), NAMES))


def test_rows_with_an_error_are_made_again_on_demand(tmp_path: Path) -> None:
    class Lucky(Length):
        def load(self) -> Any:
            return lambda path: {"length": len(path)}

    list(map_videos(Length(), [NAMES[0], "unreadable.mp4"], out=tmp_path))
    assert not list(map_videos(Lucky(), [NAMES[0], "unreadable.mp4"], out=tmp_path))
    again = list(map_videos(Lucky(), [NAMES[0], "unreadable.mp4"], out=tmp_path, retry_errors=True))
    assert again == [{"path": "unreadable.mp4", "length": 14}]
    assert sorted(row["path"] for row in rows_in(tmp_path)) == ["unreadable.mp4", NAMES[0]]


def test_a_name_that_is_no_text_is_kept(tmp_path: Path) -> None:
    names = [os.fsdecode(b"caf\xe9.mp4"), "café.mp4"]
    list(map_videos(Length(), names, out=tmp_path))
    assert [row["path"] for row in rows_in(tmp_path)] == names
    assert "café".encode() in (tmp_path / "part-00000.jsonl").read_bytes()
    assert not list(map_videos(Length(), names, out=tmp_path))


def test_nothing_secret_is_kept_and_a_rerun_knows_addresses_again(tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    addresses = [
        "https://me:hunter2@host/a.mp4",
        "https://host/two words.mp4?token=hunter2&id=1",
        "https://host/two words.mp4?token=hunter2&id=2",
        "https://host/unreadable.mp4?token=hunter2",
        "https://host/plain.mp4",
    ]
    rows = list(map_videos(Length(), addresses, out=out))
    assert [row["path"] for row in rows] == [
        "https://***@host/a.mp4",
        *2 * ["https://host/two words.mp4?…"],
        "https://host/unreadable.mp4?…",
        "https://host/plain.mp4",
    ]
    assert ["digest" in row for row in rows] == [True, True, True, True, False]
    assert rows_in(out) == rows
    assert not any(b"hunter2" in file.read_bytes() for file in out.rglob("*") if file.is_file())
    assert rows[0]["length"] == len(addresses[0])  # the work has the address as it was given
    addresses[0] = addresses[0].replace("hunter2", "changed")  # who reads, not what
    assert not list(map_videos(Length(str(log)), addresses, out=out))
    assert not log.exists()


def test_a_folder_that_can_not_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file could not be written: File exists; choose a folder"):
        list(map_videos(Length(), NAMES, out=tmp_path / "file"))
    list(map_videos(Length(), NAMES[:1], out=tmp_path / "out"))
    (tmp_path / "out" / "settings.json").write_text('{"unit"')
    with pytest.raises(OutputError, match=r"settings.json is damaged \(Expecting.*choose another folder"):
        list(map_videos(Length(), NAMES, out=tmp_path / "out"))
    list(map_videos(Length(), NAMES[:1], out=tmp_path / "more"))
    (tmp_path / "more" / "part-00000 (copy).jsonl").write_text("")
    with pytest.raises(OutputError, match=r"\(copy\).jsonl is not of this program, .*; move it away"):
        list(map_videos(Length(), NAMES, out=tmp_path / "more"))


def test_a_folder_is_of_one_work_and_one_run_at_a_time(tmp_path: Path) -> None:
    running = map_videos(Length(), NAMES, out=tmp_path)
    next(running)
    with pytest.raises(OutputError, match="another run writes there"):
        next(map_videos(Length(), NAMES, out=tmp_path))
    running.close()
    assert rows_in(tmp_path) == [{"path": NAMES[0], "length": 10}]
    with pytest.raises(OutputError, match=r"rows of other settings: unit 1, not 2; choose"):
        next(map_videos(Length(unit=2), NAMES, out=tmp_path))
    (tmp_path / "part-00000.jsonl").write_text("notes\n")
    with pytest.raises(OutputError, match=r"part-00000.jsonl: line 1 is no row of this program's \(b'notes\\n'\)"):
        next(map_videos(Length(), NAMES, out=tmp_path))
    (tmp_path / "settings.json").unlink()
    with pytest.raises(OutputError, match=r"has rows and no settings.json"):
        next(map_videos(Length(), NAMES, out=tmp_path))


def test_engines_have_names() -> None:
    with pytest.raises(ValueError, match="engine 'spark' is not known; expected one of local, ray"):
        map_videos(Length(), NAMES, engine="spark")
    assert issubclass(OutputError, OSError)
    assert issubclass(VideoReadError, OSError)
