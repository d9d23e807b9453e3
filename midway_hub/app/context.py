"""What the page's tabs share: whose page it is, word of new frames or another network, and long work that can end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import gradio as gr

from midway_hub.app import look
from midway_hub.app.session import Session, Sessions
from midway_hub.app.work import StoppedError
from midway_hub.dense.writing import Progress


def at_most(count: int, name: str) -> dict[str, Any]:
    """Return what makes events of one name wait until fewer than `count` of them, of all users, are being answered."""
    return {"concurrency_id": name, "concurrency_limit": count}


LONG = at_most(2, "long")
"""Work that may take minutes; what else users ask for does not wait for it."""
CANCELLED = "Cancelled."


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

    def work(
        self, kind: str, request: gr.Request, progress: gr.Progress, make: Callable[[Session, Progress], str]
    ) -> Any:
        """Do long work for the user who asks.

        Args:
            kind: What is still done of that kind for this user is stopped.
            request: Whose work it is.
            progress: Gradio's bar.
            make: Does it; ends when the progress calls that it is given raise.

        Returns:
            What was made, or what went wrong, as HTML; nothing to show when it was stopped.
        """
        session = self.session(request)
        try:
            with session.work(kind) as work:
                return make(session, work.watched(steps(progress)))
        except StoppedError:
            return gr.skip()  # whoever stopped it says what is shown now
        except look.FAILURES as trouble:
            return look.wrong(trouble)

    def cancels(self, button: gr.Button, kind: str, events: list[Any], shown: gr.HTML) -> None:
        """Make a button end the work of a kind, and the events that wait for their turn to begin it.

        Gradio itself forgets a function that runs and lets it run on: it ends because its `Work` is told to.
        """

        def cancel(request: gr.Request) -> Any:
            was_running = self.session(request).works.stop(kind)
            return look.note(CANCELLED) if was_running else gr.skip()

        # Not through the queue, in which what is to be cancelled may stand in front of it.
        button.click(cancel, None, shown, queue=False, show_progress="hidden", cancels=events)


def new_mark() -> str:
    """Return a value of `Context.changed` that it never had."""
    return uuid4().hex


def steps(progress: gr.Progress) -> Progress:
    """Make Gradio's progress bar take the package's progress calls."""

    def update(what: str, done: int, total: int | None) -> None:
        progress((done, total), desc=what)

    return update


def cancel_button(kind: str) -> gr.Button:
    """Make a button to end work of a kind with."""
    return gr.Button("Cancel", size="sm", elem_id=f"mw-{kind}-cancel")
