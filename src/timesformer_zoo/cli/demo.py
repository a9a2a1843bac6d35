"""`timesformer-zoo demo`: a page on which a video is dropped, and what a model says of it is read."""

from __future__ import annotations

import os
import signal
import sys
import threading
from argparse import Namespace
from tempfile import TemporaryDirectory

from timesformer_zoo.demo.look import Limits
from timesformer_zoo.demo.page import import_gradio, serve
from timesformer_zoo.demo.worker import Worker

__all__ = ["run"]

MODEL = "timesformer_tiny_divided.camera_motion"  # ships with the package: needs no network
_HERE = ("127.0.0.1", "localhost", "::1")


def run(args: Namespace) -> int:
    """Of `timesformer-zoo demo`. It ends by an interrupt."""
    import_gradio()  # before models are loaded, so that it is said at once if it is missing
    limits = Limits(args.max_size, args.max_length, args.timeout)
    library = None if args.library is None else str(args.library)
    worker = Worker(args.model or [MODEL], library, args.device, limits)
    page = None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else uploads would be left behind
    with TemporaryDirectory(prefix="timesformer-zoo-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            page, address = serve(worker, args.host, args.port)
            print(f"{address}  (Ctrl-C ends it)", flush=True)
            if args.host not in _HERE:
                warning = f"whoever reaches {args.host} can upload videos, and sees frames of the library's"
                print(f"timesformer-zoo demo: {warning}", file=sys.stderr)
            threading.Event().wait()
        finally:
            if page is not None:
                page.close(verbose=False)
            worker.close()
    return 0
