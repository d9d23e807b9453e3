"""The top of the page: the clip and how to load another, the model and how to choose another, source and target."""

from __future__ import annotations

from typing import Any

import gradio as gr

from midway_hub.app import look
from midway_hub.app.clips import VideoClip
from midway_hub.app.context import Context, at_most, new_mark, steps
from midway_hub.app.networks import Networks
from midway_hub.app.session import UPLOAD, Session
from midway_hub.app.work import StoppedError
from midway_hub.registry import get_entry, list_models

OTHER = "Or a Hub repo, folder or file"


class Controls:
    """Builds the controls where it is made, and answers them.

    Args:
        page: The page.
        context: Shared with the tabs.
        networks: What can be looked through.
        first: Name of the network that users start with.
        any_model: Whether users may name a repository, folder or file beside the registry's models.
    """

    def __init__(self, page: gr.Blocks, context: Context, networks: Networks, *, first: str, any_model: bool) -> None:
        self.context, self.networks, self.first, self.any_model = context, networks, first, any_model
        self.trouble = gr.HTML(elem_id="mw-trouble")
        self.warning = gr.HTML(elem_id="mw-warning")
        with gr.Row():
            with gr.Column(min_width=260):
                self.film = gr.HTML(elem_id="mw-film")
            with gr.Column(min_width=260):
                self._build_clip()
            with gr.Column(min_width=260):
                self._build_model()
        with gr.Row():
            self.source = _slider("Source frame", 0, "mw-source-frame")
            self.gap = _slider("Gap: frames from source to target", 1, "mw-gap")
        self.which = gr.HTML(elem_id="mw-which")
        self._wire(page)

    def _build_clip(self) -> None:
        limits = self.context.sessions.limits
        kinds = ["video", "image"]
        self.files = gr.File(
            label="Your video, or two frames", file_count="multiple", file_types=kinds, height=180, elem_id="mw-upload"
        )
        words = f"At most {limits.megabytes:g} MB and {limits.seconds:g} s. Deleted when you load another or leave."
        gr.HTML(f'<p class="mw-soft">{words}</p>')
        self.bundled = gr.Button("Back to the bundled clip", size="sm", elem_id="mw-bundled")

    def _build_model(self) -> None:
        names = list(dict.fromkeys([self.first, *list_models()]))
        choices = [(f"{name} ({_licence(name)})", name) for name in names]
        self.model = gr.Dropdown(choices, value=self.first, label="Model and its licence", elem_id="mw-model")
        with gr.Row(visible=self.any_model):
            self.other = gr.Textbox(label=OTHER, scale=4, min_width=160, elem_id="mw-other")
            self.load = gr.Button("Load", scale=1, min_width=70, elem_id="mw-load")
        self.about = gr.HTML(elem_id="mw-about")

    def _wire(self, page: gr.Blocks) -> None:
        changed = self.context.changed
        self.shown = [self.trouble, self.warning, self.film, self.about, self.source, self.gap, self.which, changed]
        page.load(self.open, None, self.shown, show_progress="hidden")
        self.files.upload(
            self.upload, self.files, [self.files, *self.shown], show_progress_on=self.film, **at_most(4, UPLOAD)
        )
        self.bundled.click(self.go_back, None, self.shown, show_progress="hidden")
        about: dict[str, Any] = {"outputs": self.shown, "show_progress_on": self.about, **at_most(2, "models")}
        self.model.input(self.choose, self.model, **about)
        gr.on([self.load.click, self.other.submit], self.choose, self.other, **about)
        sliders = [self.source, self.gap]
        gr.on(
            [slider.input for slider in sliders],
            self.scrub,
            sliders,
            [self.which, changed],
            show_progress="hidden",
            trigger_mode="always_last",
        )

    # -- answers ---------------------------------------------------------------------------------------------------

    def open(self, request: gr.Request) -> tuple[Any, ...]:
        """Show what the user has before them."""
        return self._all(self.context.session(request))

    def upload(
        self,
        paths: list[str] | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[Any, ...]:
        """Look at uploaded files, and empty the place where they were dropped."""
        session = self.context.session(request)
        try:
            with session.work(UPLOAD) as work:
                session.open_uploaded(paths or [], work.watched(steps(progress)))
        except StoppedError:
            return None, *(gr.skip() for _ in self.shown)
        except look.FAILURES as error:
            return None, *self._trouble(error)
        return None, *self._all(session)

    def go_back(self, request: gr.Request) -> tuple[Any, ...]:
        """Look at the bundled clip again."""
        session = self.context.session(request)
        session.open_bundled(self.context.sessions.bundled)
        return self._all(session)

    def choose(
        self,
        name: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[Any, ...]:
        """Look through another network."""
        session, name = self.context.session(request), (name or "").strip()
        progress(0, desc=f"loading {name}")
        try:
            if not name:
                raise ValueError("no model is named: write a Hub repository (owner/name), a folder or a file")
            if not self.any_model and name not in (self.first, *list_models()):
                raise ValueError(f"this page offers the models of its list only, got {name!r}")
            session.use(self.networks.load(name))
        except look.FAILURES as error:
            return self._trouble(error)
        return self._all(session)

    def scrub(self, source: float, gap: float, request: gr.Request) -> tuple[Any, ...]:
        """Choose source and target frame."""
        session = self.context.session(request)
        session.choose_frames(source, gap)
        return look.says(_which(session)), new_mark()

    def _all(self, session: Session) -> tuple[Any, ...]:
        chosen, last = session.chosen, len(session.clip.seconds) - 1
        return (
            "",
            look.note(chosen.warning, "warn") if chosen.warning else "",
            _film(session),
            look.facts(chosen.facts),
            gr.Slider(maximum=max(1, last - 1), value=session.source, interactive=last > 1),
            gr.Slider(maximum=max(2, last), value=session.gap, interactive=last > 1),
            look.says(_which(session)),
            new_mark(),
        )

    def _trouble(self, error: BaseException) -> tuple[Any, ...]:
        """Say what went wrong and leave everything else as it is."""
        return look.wrong(error), *(gr.skip() for _ in self.shown[1:])


def _slider(label: str, least: int, elem_id: str) -> gr.Slider:
    return gr.Slider(least, least + 1, value=least, step=1, label=label, elem_id=elem_id, min_width=260, buttons=[])


def _licence(name: str) -> str:
    return get_entry(name).licence if name in list_models() else "licence unknown"


def _film(session: Session) -> str:
    """Show the clip so that it can be played, and say what it is."""
    clip, (width, height) = session.clip, session.clip.own_size
    size = f"{width}×{height}" + (f", looked at in {clip.size[0]}×{clip.size[1]}" if clip.size != clip.own_size else "")
    if session.film is not None and isinstance(clip, VideoClip):
        facts = f"{clip.name}: {len(clip.seconds)} frames of {size}, {clip.duration:.2f} s"
        shown = look.film(session.film, f"The clip, {facts}")
    else:
        facts = f"{clip.name}: two frames of {size}"
        shown = look.image(clip.frames([0])[0], "The first of the two frames")
    return f'<div class="mw-film">{shown}<span class="mw-caption">{look.escape(facts)}</span></div>'


def _which(session: Session) -> str:
    seconds, source, target = session.clip.seconds, session.source, session.target
    if not isinstance(session.clip, VideoClip):
        return "From the first frame to the second."
    return f"From frame {source} ({seconds[source]:.2f} s) to frame {target} ({seconds[target]:.2f} s)."
