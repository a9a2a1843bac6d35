"""A real Ray cluster of two nodes on this machine, a core and a worker each; workers and drivers are killed."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
from small_models import tiny
from works import Length, Traced

from timesformer_zoo import ClusterError, RayEngine, embed, load_model, map_videos, save_pretrained
from timesformer_zoo_cli import main

ray = pytest.importorskip("ray", reason="needs timesformer-zoo[cluster]")
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    node = dict(num_cpus=1, include_dashboard=False, object_store_memory=100_000_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # so that workers find works.py
        cluster = Cluster(initialize_head=True, head_node_args=node)
        cluster.add_node(**node)
        yield cluster
        cluster.shutdown()


@pytest.fixture
def address(cluster: Any) -> str:
    return cluster.address


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_pretrained(tiny(clip={"stride": 4, "crops": 1}), tmp_path_factory.mktemp("models") / "mine"))


def copies(video: Path, folder: Path, count: int) -> list[str]:
    paths = [folder / f"video{number}.mp4" for number in range(count)]
    for path in paths:
        copy(video, path)
    return [str(path) for path in paths]


def rows_in(folder: Path) -> dict[str, dict[str, Any]]:
    """By path; each is there once."""
    rows = [json.loads(line) for part in folder.glob("part-*.jsonl") for line in part.read_bytes().splitlines()]
    by_path = {row["path"]: row for row in rows}
    assert len(by_path) == len(rows)
    return by_path


def begun(log: Path) -> list[tuple[int, str]]:
    """(process, video), as works.Traced notes it."""
    return [(int(line.split(" ", 1)[0]), line.split(" ", 1)[1]) for line in log.read_text().splitlines()]


def test_a_killed_worker_changes_nothing_and_poison_is_reported_once(
    address: str, model: str, video: Path, tmp_path: Path
) -> None:
    """One worker is killed from outside, one by each of three attempts at a file, one hangs, one runs out of memory."""
    videos = copies(video, tmp_path, 24)
    local = {row["path"]: row for row in map_videos(Traced(model, ""), videos)}
    login = "https://me:hunter2@host"
    poison = [f"{login}/killer.mp4", str(tmp_path / "hanging.mp4"), f"{login}/too_large.mp4", f"{login}/unreadable.mp4"]
    mixed = videos[:12] + [path for pair in zip(poison, videos[12:16], strict=True) for path in pair] + videos[16:]
    log, out = tmp_path / "log", tmp_path / "out"
    work = Traced(model, str(log), seconds=0.1)
    killed = 0
    for _ in map_videos(work, mixed, engine=RayEngine(address, workers=2, timeout=5), out=out):
        if not killed:
            killed, innocent = begun(log)[-1]
            assert Path(innocent).name.startswith("video")
            os.kill(killed, signal.SIGKILL)
    rows = rows_in(out)
    assert "hunter2" not in "".join(part.read_text() for part in out.glob("*.json*"))
    times = Counter(path for _, path in begun(log))
    assert [times[path] for path in poison] == [3, 1, 3, 1]
    poison = [path.replace("me:hunter2", "***") for path in poison]
    assert {path: rows.pop(path)["error"] for path in poison} == {
        poison[0]: f"{poison[0]}: 3 workers died of it; it was given up, try it by itself",
        poison[1]: f"{poison[1]}: it took longer than 5 s; it was given up, try it by itself",
        poison[2]: f"{poison[2]}: RuntimeError: out of memory (3 times)",
        poison[3]: f"{poison[3]}: no video",
    }
    assert rows == local  # to the last bit
    assert len({process for process, _ in begun(log)}) >= 2 + 1 + 3 + 1  # two, and one for each that died


def test_a_library_is_the_same_by_a_cluster(address: str, model: str, video: Path, tmp_path: Path) -> None:
    videos = [*copies(video, tmp_path, 6), str(tmp_path / "missing.mp4")]
    for name, engine in {"here": "local", "there": RayEngine(address, workers=2)}.items():
        embed(model, videos, tmp_path / name, engine=engine, device="cpu")
    here, there = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("here", "there"))
    assert there == here
    assert len(here) == 3  # a part, library.json and the lock
    loaded = load_model(model)
    with pytest.raises(ValueError, match="workers of a cluster load the model by its name"):
        embed(loaded, [*videos, "more.mp4"], tmp_path / "there", engine=RayEngine(address, workers=2))


@pytest.mark.slow
def test_after_a_killed_driver_a_rerun_does_what_is_left(address: str, tmp_path: Path) -> None:
    names = [f"slow{number}.mp4" for number in range(40)]
    log, out = tmp_path / "log", tmp_path / "out"
    script = f"""
from works import Traced, Length
from timesformer_zoo import RayEngine, map_videos
import time
for row in map_videos(Length(), {names}, engine=RayEngine({address!r}, workers=2), out={str(out)!r}):
    print(row["path"], flush=True)
    time.sleep(0.05)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        done = [driver.stdout.readline().strip() for _ in range(10)]
        driver.kill()
    assert set(done) <= set(names)
    assert not list(out.glob("part-*.jsonl"))
    again = list(map_videos(Length(str(log)), names, engine=RayEngine(address, workers=2), out=out))
    assert not set(done) & {row["path"] for row in again}
    assert not set(done) & set(log.read_text().split())
    assert rows_in(out) == {name: {"path": name, "length": len(name)} for name in names}


def test_the_command_prints_what_the_local_one_prints(
    address: str, model: str, video: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    videos = copies(video, tmp_path, 5)
    (tmp_path / "empty.mp4").touch()
    options = ["classify", *videos[:3], str(tmp_path / "empty.mp4"), *videos[3:], "--model", model, "--device", "cpu"]
    assert main(options) == 1
    local = capfd.readouterr()
    assert main([*options, "--engine", "ray", "--address", address, "--workers", "2"]) == 1
    assert capfd.readouterr() == local  # Ray itself says nothing
    assert main([*options, "--engine", "ray", "--address", address, "--clips", "2", "--windows"]) == 2
    assert "--clips is for looking once" in capfd.readouterr().err


@pytest.mark.slow
def test_what_is_wrong_with_the_call_is_raised_and_not_retried(address: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(ValueError, match="the call makes no sense"):
        list(map_videos(Length(str(log)), ["nonsense.mp4"], engine=RayEngine(address)))
    assert log.read_text().split() == ["nonsense.mp4"]
    with pytest.raises(ClusterError, match="3 workers died while they loaded the work; is the memory enough"):
        list(map_videos(Length(fails="killer"), ["a.mp4"], engine=RayEngine(address)))


@pytest.mark.slow
def test_a_lost_machine_changes_nothing(cluster: Any, tmp_path: Path) -> None:
    """It is noticed after ten seconds without a word from it, and does not come back."""
    names = [f"{number}.mp4" for number in range(30)]
    node = cluster.add_node(num_cpus=1, include_dashboard=False, object_store_memory=100_000_000)
    lost = False
    for _ in map_videos(Length(seconds=0.3), names, engine=RayEngine(cluster.address, workers=3), out=tmp_path):
        if not lost:
            cluster.remove_node(node, allow_graceful=False)
            lost = True
    assert rows_in(tmp_path) == {name: {"path": name, "length": len(name)} for name in names}


def test_where_no_cluster_is_one_line_says_so() -> None:
    with pytest.raises(ClusterError, match=r"no Ray cluster at 127.0.0.1:1: .*refused; is it running\?"):
        list(map_videos(Length(), ["a.mp4"], engine=RayEngine("127.0.0.1:1")))


def test_a_worker_that_fits_nowhere_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(
        ClusterError, match=r"no machine has 1000 cores and 0\.5 GPUs, which a worker is to have; ask for"
    ):
        list(map_videos(Length(), ["a.mp4"], engine=RayEngine(cpus=1000, gpus=0.5)))
