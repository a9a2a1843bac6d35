"""A worker a core for the whole suite, a fresh accelerate for each test, and the video that most tests read."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: each worker has a core, not all of them


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """For `-n auto`: files that are named run here, where torch is imported once; None leaves the choice to xdist."""
    return None if config.args_source is pytest.Config.ArgsSource.TESTPATHS else 0


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of what was found out about files: neither the user's, nor what another run of the tests left."""
    os.environ["TIMESFORMER_ZOO_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _fresh_accelerate() -> Iterator[None]:
    """accelerate keeps precision and devices for the life of a process; each test is to choose its own."""
    yield
    if state := sys.modules.get("accelerate.state"):
        state.AcceleratorState._reset_state(reset_partial_state=True)
        state.GradientState._reset_state()


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 numbered frames of 64 × 96 pixels, 25 a second; not to be changed."""
    from videos import write_video

    return write_video(tmp_path_factory.mktemp("videos") / "video.mp4", frames=60)
