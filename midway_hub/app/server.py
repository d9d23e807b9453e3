"""The page in the browser: built of its tabs, served on this machine, gone without a trace."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import signal
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from midway_hub._extras import how_to_install
from midway_hub.app.options import PageOptions
from midway_hub.app.uploads import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    import gradio as gr

LEAST_GRADIO = "6.31"
SYSTEM_FONTS = ["system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Noto Sans", "Arial", "sans-serif"]
SYSTEM_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


def need_gradio() -> None:
    """Refuse to go on without the package that makes the page.

    Raises:
        ImportError: It is not installed, or too old; the message says what to install.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ImportError(f"the page needs Gradio, which is not installed: {how_to_install('gradio')}")
    from importlib.metadata import version

    from packaging.version import Version

    if Version(version("gradio")) < Version(LEAST_GRADIO):
        raise ImportError(
            f"the page needs Gradio {LEAST_GRADIO} or later, got {version('gradio')}: pip install -U 'midway-hub[app]'"
        )


def serve(
    options: PageOptions,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    share: bool = False,
    open_browser: bool = False,
    ready: Callable[[str, str | None], None] = lambda address, public: None,
) -> None:
    """Serve the page until interrupted or terminated; then delete all that was uploaded.

    Args:
        options: What it offers.
        host: Address to listen on; the loopback address admits this machine alone.
        port: Port to listen on.
        share: Also make it reachable from everywhere, through Gradio's own tunnel.
        open_browser: Open it in the browser.
        ready: Called with the page's address, and the public one if there is one.

    Raises:
        ImportError: Gradio is not installed.
        OSError: The port is taken, or the network cannot be loaded.
        ValueError: The network cannot be loaded.
    """
    need_gradio()
    _check_free(host, port)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="midway-hub-app-")))
        stack.enter_context(_environment(GRADIO_TEMP_DIR=str(folder / "transfers"), GRADIO_ANALYTICS_ENABLED="False"))
        stopped = stack.enter_context(_stop_signals())
        from midway_hub.app.layout import build_page

        kept, transfers = folder / "kept", folder / "transfers"
        kept.mkdir()
        transfers.mkdir()
        page, sessions = build_page(options, kept)
        stack.callback(page.close, verbose=False)
        stack.callback(sessions.close_all)  # first of all: the process does not end while something is computed
        _, address, public = launch(page, kept, host=host, port=port, share=share, limits=options.limits)
        ready(address, public)
        if open_browser:
            webbrowser.open(address)
        stopped.wait()


def launch(
    page: gr.Blocks, folder: Path, *, host: str, port: int, share: bool, limits: Limits
) -> tuple[Any, str, str | None]:
    """Start Gradio's server in the background, with nothing that asks the network or tells tales.

    Returns:
        As `gradio.Blocks.launch`.
    """
    import gradio as gr

    from midway_hub.app.look import STYLE

    return page.launch(
        server_name=host,
        server_port=port,
        share=share,
        quiet=True,
        prevent_thread_lock=True,
        inbrowser=False,
        theme=gr.themes.Default(font=SYSTEM_FONTS, font_mono=SYSTEM_MONO),
        css=STYLE,
        footer_links=["settings"],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        max_file_size=int(limits.megabytes * 1e6),
        allowed_paths=[str(folder)],
    )


def is_loopback(host: str) -> bool:
    """Whether an address to listen on admits this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _check_free(host: str, port: int) -> None:
    """Refuse a port that is taken, before anything slow is done."""
    if not 1 <= port <= 65535:
        raise ValueError(f"port must be from 1 to 65535, got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise OSError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another port with --port"
            ) from None


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set variables that Gradio reads, and put back what was there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Turn interruption and termination into an event, so that what was uploaded is deleted on the way out."""
    stopped = threading.Event()
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(ValueError):  # not the main thread: whoever runs it stops it
            before[number] = signal.signal(number, lambda *_: stopped.set())
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
