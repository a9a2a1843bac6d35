"""One error, in the user's terms, where a model's weights cannot be had from the Hub or a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["explain_hub_errors"]


@contextmanager
def explain_hub_errors(config: Mapping[str, Any]) -> Iterator[None]:
    """Turn the Hub client's errors into one that names the model, the source, the cache and what to do.

    Args:
        config: timm's pretrained config of the model being created.

    Raises:
        DownloadError: instead of any error of the network, the Hub client or the server.
    """
    from urllib.error import URLError

    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    from timesformer_zoo.errors import DownloadError

    # The client's own HTTP library, which differs from one of its releases to another: its error is the base class.
    transport_errors = tuple(base for base in HfHubHTTPError.__bases__ if base is not OSError)
    try:
        yield
    except (*transport_errors, LocalEntryNotFoundError, OfflineModeIsEnabled, URLError, ConnectionError) as error:
        name = ".".join(part for part in (config.get("architecture"), config.get("tag")) if part)
        source = config.get("hf_hub_id") or config.get("url")
        status = getattr(getattr(error, "response", None), "status_code", None)
        cause = f"HTTP {status}" if status else type(error).__name__
        raise DownloadError(
            f"The weights of {name} could not be had from {source} ({cause}), nor are they in the cache, "
            f"{constants.HF_HUB_CACHE}. HF_HUB_OFFLINE is {'on' if constants.HF_HUB_OFFLINE else 'off'}. "
            "Connect and retry, or fetch the file elsewhere and pass pretrained_cfg_overlay=dict(file=PATH). "
            "A private or gated repository needs `hf auth login`."
        ) from error
