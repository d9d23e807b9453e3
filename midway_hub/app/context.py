"""What the page's tabs share: whose page it is, and word of new frames or another network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

import gradio as gr

from midway_hub.app.session import Session, Sessions


@dataclass(frozen=True)
class Context:
    """Handed to every tab when the page is built.

    Attributes:
        sessions: The users of the page.
        changed: Changes whenever a user's clip, frames or network do; tabs listen to it.
    """

    sessions: Sessions
    changed: gr.State

    def session(self, request: gr.Request) -> Session:
        """Return what the user who asks has before them."""
        return self.sessions.of(str(request.session_hash))


def new_mark() -> str:
    """Return a value of `Context.changed` that it never had."""
    return uuid4().hex


def steps(progress: gr.Progress) -> Callable[[str, int, int], None]:
    """Make Gradio's progress bar take the package's progress calls."""

    def update(what: str, done: int, total: int) -> None:
        progress((done, total), desc=what)

    return update
