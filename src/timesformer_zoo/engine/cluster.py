"""Many videos on a Ray cluster.

Ray Data spreads the videos over a pool of workers, each of which loads the work once; it runs again what a dead worker
or machine had, elsewhere if need be, and hands every block of answers over once. It does so for ever, though, and
can't say which of a block's videos was being worked on. So beside the pool there is one small actor, the `_Ledger`,
whom a worker tells each video before it starts on it: a video that was begun three times and never ended is given up.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import pickle
import socket
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from timesformer_zoo.engine.work import Row, Work, of_error, of_video, row_of
from timesformer_zoo.errors import ClusterError, VideoReadError
from timesformer_zoo.video.remote import masked, shown
from timesformer_zoo.words import counted

__all__ = ["RayEngine"]

_WAVE = 500_000  # videos that Ray knows of at a time: it keeps all it is given in memory
_BLOCK = 16  # videos that are lost, and done again, with a worker; fewer where there are few for each worker
_GRACE = 10.0  # seconds from the time limit until a worker is ended that doesn't even run Python any more


@dataclass(frozen=True)
class RayEngine:
    """A Ray cluster; needs `pip install 'timesformer-zoo[cluster]'`, on its machines too.

    A worker that dies is replaced and what it worked on done again. A video is given up, and its row has an "error", if
    `attempts` workers died of it, if it raised an error other than VideoReadError as often, or if it took longer than
    `timeout`. ValueError and TypeError are raised: they are of the call and not of a video.
    """

    address: str | None = None
    """"auto": of the cluster that this machine is one of; or host:port; None: RAY_ADDRESS, or this machine alone."""
    workers: int | None = None
    """At most; None: as many as the cluster has room for."""
    cpus: float = 1
    """Cores of a worker: so many threads has torch."""
    gpus: float | None = None
    """Of a worker; 0.25: four share one. None: 1 if the cluster has any, else 0."""
    timeout: float | None = None
    """Seconds for one video."""
    attempts: int = 3

    def __post_init__(self) -> None:
        for name in ("workers", "cpus", "timeout", "attempts"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}, expected a positive number")
        if self.address is not None and self.address.startswith("ray://"):
            raise ValueError(
                f"address is {self.address}, a client's connection, with which a run would end; "
                "start the run on a machine of the cluster, as `ray job submit` does, with address auto"
            )

    def run(self, work: Work, videos: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
        """As `Engine.run`, which see."""
        numbered = iter(videos)
        first = list(islice(numbered, 1))
        if not first:
            return
        with _cluster(self.address):
            ledger = _start_ledger(self.attempts)
            while wave := first + list(islice(numbered, _WAVE)):
                yield from self._wave(work, wave, ledger)
                first = []

    def _wave(self, work: Work, videos: list[tuple[int, str]], ledger: Any) -> Iterator[tuple[int, Row]]:
        import ray
        from ray import cloudpickle

        pickled = cloudpickle.dumps(work)  # not by Ray: a worker that can't read it is to say so in our words
        machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
        gpus = self.gpus if self.gpus is not None else min(sum(machine.get("GPU", 0) for machine in machines), 1)
        start = max(1, min(self._room(machines, gpus), self.workers or _WAVE))
        size = max(1, min(_BLOCK, len(videos) // (8 * start)))
        blocks = [{"videos": pickle.dumps(videos[i : i + size])} for i in range(0, len(videos), size)]
        answers = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map_batches(
            _Worker,
            fn_constructor_args=(pickled, ledger, self.timeout, self.attempts, max(1, int(self.cpus))),
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(
                min_size=1, max_size=self.workers, initial_size=start, max_tasks_in_flight_per_actor=2
            ),
            num_cpus=self.cpus,
            num_gpus=gpus,
        )
        due = dict(videos)
        try:
            for block in answers.iter_rows():
                for number, answer in pickle.loads(block["answers"]):
                    if isinstance(answer, BaseException):
                        raise answer
                    if due.pop(number, None) is not None:
                        yield number, json.loads(answer)
        except ray.exceptions.RayError as error:
            raise ClusterError(f"Ray gave up: {shown(' '.join(str(error).split()))}") from error
        if due:
            raise ClusterError(
                f"{counted(len(due), 'videos')} got no answer, {masked(next(iter(due.values())))} first; run it again"
            )

    def _room(self, machines: list[dict[str, float]], gpus: float) -> int:
        """Workers that the cluster can have now."""
        needed = {"CPU": self.cpus, "GPU": gpus} if gpus else {"CPU": self.cpus}
        room = sum(int(min(machine.get(name, 0) / value for name, value in needed.items())) for machine in machines)
        if not room:
            what = f"no machine has {self.cpus:g} cores" + (f" and {gpus:g} GPUs" if gpus else "")
            if self.address is None:
                raise ClusterError(f"{what}, which a worker is to have; ask for less, or give a cluster's address")
            warnings.warn(f"{what}, which a worker is to have; waiting for one", stacklevel=2)
        return room


class _Worker:
    """One of the pool; works on a block at a time."""

    def __init__(self, work: bytes, ledger: Any, timeout: float | None, attempts: int, threads: int) -> None:
        self._work, self._ledger, self._timeout = work, ledger, timeout
        self._attempts, self._threads = attempts, threads
        self._answer: Any = None
        self._ended: Any = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Blocks of (number, path) -> as many of (number, the row as JSON, or an error to be raised)."""
        return {"answers": [pickle.dumps(self._block(pickle.loads(videos))) for videos in batch["videos"]]}

    def _block(self, videos: list[tuple[int, str]]) -> list[tuple[int, str | BaseException]]:
        answers: list[tuple[int, str | BaseException]] = []
        for number, path in videos:
            try:
                if self._answer is None:
                    self._load(number)
                answers.append((number, json.dumps(row_of(path, self._video(number, path)))))
            except Exception as error:
                return [*answers, (number, _portable(error))]
        self._ledger.end.remote(self._ended)
        return answers

    def _load(self, number: int) -> None:
        """Not before it is needed, since what is raised in __init__ comes wrapped in Ray's words."""
        if self._begin(("load", number)) is not None:
            raise ClusterError(
                f"{self._attempts} workers died while they loaded the work; is the memory enough for it?"
            )
        import torch

        torch.set_num_threads(self._threads)
        try:
            work = pickle.loads(self._work)
        except ImportError as error:
            raise ClusterError(
                f"a worker can't read the work: {error}; install on every machine what it imports"
            ) from None
        self._answer = work.load()

    def _video(self, number: int, path: str) -> Row:
        reason = self._begin(number)
        if reason is not None:
            return of_error(path, f"{path}: {reason}; it was given up, try it by itself")
        for _ in range(self._attempts):
            try:
                with self._limit(number):
                    return dict(self._answer(path))
            except VideoReadError as error:
                return of_error(path, error)
            except (ValueError, TypeError) as error:
                raise of_video(path, error) from None
            except Exception as error:
                reason = f"{type(error).__name__}: {error} ({self._attempts} times)"
        return of_error(path, f"{path}: {reason}")

    def _begin(self, what: Any) -> str | None:
        import ray

        ended, self._ended = self._ended, what
        reason: str | None = ray.get(self._ledger.begin.remote(what, ended))
        return reason

    @contextmanager
    def _limit(self, number: int) -> Iterator[None]:
        """Ends this process after too long: nothing else stops what hangs in native code."""
        if self._timeout is None:
            yield
            return
        reason = f"it took longer than {self._timeout:g} s"

        def end() -> None:
            import ray

            with suppress(Exception):
                ray.get(self._ledger.give_up.remote(number, reason), timeout=_GRACE / 2)
            os._exit(1)

        timer = threading.Timer(self._timeout, end)
        timer.daemon = True
        with open(os.devnull, "w") as nowhere:
            faulthandler.dump_traceback_later(self._timeout + _GRACE, exit=True, file=nowhere)
            timer.start()
            try:
                yield
            finally:
                timer.cancel()
                faulthandler.cancel_dump_traceback_later()


class _Ledger:
    """What was begun and not ended, which outlives the workers."""

    def __init__(self, attempts: int) -> None:
        self._attempts = attempts
        self._begun: Counter[Any] = Counter()
        self._reasons: dict[Any, str] = {}

    def begin(self, what: Any, ended: Any) -> str | None:
        """None, or why it is not to be begun again. `ended` was the same worker's before."""
        self.end(ended)
        if self._begun[what] >= self._attempts:
            self._reasons.setdefault(what, f"{self._attempts} workers died of it")
        self._begun[what] += 1
        return self._reasons.get(what)

    def end(self, what: Any) -> None:
        self._begun.pop(what, None)

    def give_up(self, what: Any, reason: str) -> None:
        self._reasons[what] = reason


def _start_ledger(attempts: int) -> Any:
    """On this machine: it then lives as long as this process, whatever becomes of the others."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = dict(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
    return ray.remote(_Ledger).options(**options).remote(attempts)


def _portable(error: Exception) -> Exception:
    """As another process can read it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """The cluster that this process is in, or else one that it joins for as long as this lasts, and quietly: what Ray
    tells of workers that died would get among the answers on standard output. Its own logs have it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal") == "fatal"
    import ray
    import ray.data
    from ray._private import worker

    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"  # Ray's None is any cluster that runs here
    worker._worker_logs_enabled = False
    try:
        _expect_answer(address)
        with _silence() if quiet else nullcontext():
            ray.init(address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(f"no Ray cluster at {address}: {error}; is it running?") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its errors are raised as well
    try:
        yield
    finally:
        ray.shutdown()
        worker._worker_logs_enabled = True


def _expect_answer(address: str) -> None:
    """Raises OSError within seconds if nobody listens at HOST:PORT; Ray itself waits for many minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def _silence() -> Iterator[None]:
    """Of native code: it announces there that it will log less."""
    sys.stderr.flush()
    before = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
