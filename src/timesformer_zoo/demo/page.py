"""The page: a video goes in, what a model says of it comes out. Gradio's; nothing of it is fetched from elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from timesformer_zoo.demo import html
from timesformer_zoo.demo.worker import Worker
from timesformer_zoo.hub.load import local_folder

if TYPE_CHECKING:
    from gradio import Blocks

__all__ = ["build", "import_gradio", "serve"]

KEPT = (60, 900)  # seconds: how often uploads are looked through, and how old they become
_WAITING = 16  # who may wait in the queue; others are told to come back

# The browser refuses what a page or a library of it would load from another machine.
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"


def serve(worker: Worker, host: str, port: int | None = None) -> tuple[Blocks, str]:
    """Show the page, in threads of this process, until the `Blocks` are closed.

    Args:
        port: None: the first that is free from 7860 up.

    Returns:
        The page, and its address.

    Raises:
        ModuleNotFoundError: gradio is not installed.
        OSError: the port is in use.
    """
    gr = import_gradio()
    from starlette.middleware import Middleware

    page = build(worker)
    page.queue(max_size=_WAITING, default_concurrency_limit=1, api_open=False)
    system = ["system-ui", "sans-serif"]  # others would be loaded from Google
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        max_file_size=round(worker.limits.megabytes * 2**20),
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=[],
        app_kwargs={"middleware": [Middleware(_OnlyFromHere)]},
        theme=gr.themes.Default(font=system, font_mono=["monospace"]),
        css=html.CSS,
    )
    return page, address


def import_gradio() -> Any:
    """Gradio, which tells nobody that it is used.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # it looks at this as it is imported
    import gradio

    return gradio


class _OnlyFromHere:
    """Adds the policy to every answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
            await send(message)

        await self._app(scope, receive, with_policy)


def _shown(names: Sequence[str]) -> dict[str, str]:
    """What a reader chooses from -> the model's name. Where a folder lies here is no business of a page's readers."""
    shown: dict[str, str] = {}
    for name in names:
        folder = local_folder(name)
        short = name if folder is None else folder.resolve().name
        same = sum(key == short or key.startswith(f"{short} (") for key in shown)
        shown[f"{short} ({same + 1})" if same else short] = name
    return shown


def _of_uploads_alone(video: Any) -> None:
    """Gradio would also fetch the address that somebody names who asks without the page."""
    move = video.async_move_resource_to_block_cache

    async def refuse(path: Any) -> Any:
        if "://" in str(path):
            raise import_gradio().Error("upload a file; addresses are not fetched")
        return await move(path)

    video.async_move_resource_to_block_cache = refuse


def build(worker: Worker) -> Blocks:
    """The page's parts and what the button does; one column for what goes in, one for what comes out."""
    gr = import_gradio()

    limits, models = worker.limits, _shown(worker.models)
    with gr.Blocks(title="TimeSformer", analytics_enabled=False, delete_cache=KEPT) as page:
        gr.Markdown("# What does TimeSformer see in a video?")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                video = gr.Video(
                    label=f"Video, of at most {limits.megabytes:g} MB and {limits.minutes:g} minutes",
                    sources=["upload"],
                    height=300,
                )
                _of_uploads_alone(video)
                model = gr.Radio(list(models), value=next(iter(models)), label="Model")
                button = gr.Button("Look at it", variant="primary")
                status = gr.HTML(html.progress("Upload a video, then press the button.", 1), label="Status")
            with gr.Column(scale=3, min_width=320):
                labels = gr.Label(label="Labels of the whole video", num_top_classes=5)
                with gr.Accordion("Timeline"):
                    timeline = gr.HTML()
                with gr.Accordion("Explanation"):
                    explanation = gr.HTML()
                with gr.Accordion("Nearest neighbours", visible=worker.library is not None):
                    neighbours = gr.HTML()
        results = {"labels": labels, "timeline": timeline, "explanation": explanation, "neighbours": neighbours}

        def look(path: str | None, model_name: str) -> Iterator[dict[Any, Any]]:
            if path is None:
                yield {status: html.problem("There is no video yet: upload one, then press the button.")}
                return
            yield {status: html.progress("Reading the video", 0), **dict.fromkeys(results.values())}
            for update in worker.look(path, models[model_name]):
                new: dict[Any, Any] = {results[name]: value for name, value in update.items() if name in results}
                if "error" in update:
                    new[status] = html.problem(update["error"])
                elif "status" in update:
                    new[status] = html.progress(update["status"], update.get("done", 0))
                yield new

        button.click(
            look, [video, model], [status, *results.values()], show_progress_on=status, show_progress="minimal"
        )
    blocks: Blocks = page
    return blocks
