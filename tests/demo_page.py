"""`timesformer-zoo demo` as a process."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EMBEDDED = "timesformer_tiny_divided.camera_motion"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def demo_page(temporary: Path, *options: str) -> Iterator[str]:
    """The command as a process, at a free port; its address. It ends by an interrupt, and leaves nothing behind."""
    port = free_port()
    command = [sys.executable, "-m", "timesformer_zoo_cli", "demo", "--port", str(port), "--device", "cpu", *options]
    environment = {**os.environ, "GRADIO_SHARE": "True", "TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line == f"http://127.0.0.1:{port}/  (Ctrl-C ends it)\n", process.stderr.read()
        yield line.split()[0]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    *_, last = err.splitlines()  # before it, what Gradio says of requests that it refuses
    assert last == "timesformer-zoo demo: interrupted; what it has printed or written is done"
    assert list(temporary.glob("timesformer-zoo-demo-*")) == []
