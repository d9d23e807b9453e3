"""A picture of the views of one clip, to look at."""

from __future__ import annotations

import math
from itertools import cycle

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from midway_hub.training.data.clip import Clip
from midway_hub.training.data.views.apply import apply_views
from midway_hub.training.data.views.boxes import Box
from midway_hub.training.data.views.draw import ColourDraw, ViewDraw

WIDTH, LEAST, GAP, LINE = 1240, 310, 8, 14
"""Width of the picture and least width of a frame's column, space between parts and height of a line, in pixels."""
LARGE = 3
"""Groups of up to so many views of a frame are shown large."""
INKS = ("orangered", "deepskyblue", "gold", "limegreen", "violet")
NAMES = {"globals": "global", "locals": "local", "dense": "dynamics"}
BACKGROUND, INK = (24, 24, 24), (230, 230, 230)


def contact_sheet(clip: Clip, draw: ViewDraw) -> Image.Image:
    """Lay out a clip's frames with the boxes drawn in, and under each frame the views cut from it.

    Args:
        clip: The frames.
        draw: What was drawn for them.

    Returns:
        An RGB image 1240 pixels wide, or more for clips of more than four frames.
    """
    views = apply_views(clip, draw)
    width = max(LEAST, WIDTH // len(clip.pictures))
    columns = [_column(clip, draw, views, frame, width) for frame in range(len(clip.pictures))]
    sheet = Image.new("RGB", (width * len(columns), max(column.height for column in columns)), BACKGROUND)
    for index, column in enumerate(columns):
        sheet.paste(column, (index * width, 0))
    return sheet


def _column(clip: Clip, draw: ViewDraw, views: dict[str, Tensor], frame: int, width: int) -> Image.Image:
    """Draw one frame and its views."""
    letter = "xyz"[frame] if len(clip.pictures) <= 3 else str(frame + 1)
    title = f"frame {letter}: {clip.frames[frame]}, "
    title += f"{clip.times[frame]:.2f} s later" if frame else clip.name
    parts = [_titled(title, _with_boxes(Image.fromarray(clip.pictures[frame]), draw, frame, width))]
    for large in (True, False):
        cells = [
            cell
            for group in draw.groups
            if (0 < len(_of_frame(draw, group, frame)) <= LARGE) == large
            for cell in _cells(group, draw, views, frame, (width - 4 * GAP) // 3 if large else (width - 5 * GAP) // 4)
        ]
        if cells:
            parts.append(_grid(cells, width))
    column = Image.new("RGB", (width, sum(part.height + GAP for part in parts)), BACKGROUND)
    top = 0
    for part in parts:
        column.paste(part, (GAP // 2, top))
        top += part.height + GAP
    return column


def _with_boxes(frame: Image.Image, draw: ViewDraw, number: int, column: int) -> Image.Image:
    width = column - GAP
    scale = width / frame.width
    picture = frame.resize((width, max(1, round(frame.height * scale))))
    pen = ImageDraw.Draw(picture)
    for (group, crops), ink in zip(draw.groups.items(), cycle(INKS), strict=False):
        indices = _of_frame(draw, group, number)
        for index in indices:
            _outline(pen, crops.boxes[index].tolist(), scale, ink, thin=len(indices) > LARGE)
    for box in draw.outer.values():
        _outline(pen, box, scale, "white")
    return picture


def _outline(pen: ImageDraw.ImageDraw, box: Box, scale: float, ink: str, *, thin: bool = False) -> None:
    top, left, height, width = (scale * side for side in box)
    pen.rectangle((left, top, left + width, top + height), outline=ink, width=1 if thin else 2)


def _cells(group: str, draw: ViewDraw, views: dict[str, Tensor], frame: int, side: int) -> list[Image.Image]:
    """Return one frame's views of a group, each with its name and with what was changed."""
    crops, cells = draw.groups[group], []
    indices = _of_frame(draw, group, frame)
    height, width = crops.size
    size = (side, max(1, round(side * height / width)))
    for number, index in enumerate(indices, start=1):
        picture = Image.fromarray(views[group][index].permute(1, 2, 0).numpy()).resize(size)
        changes = _changes(crops.colour, index) + ["mirrored"] * bool(crops.flips[index])
        name = NAMES.get(group, group) + (f" {number}" if len(indices) > 1 else "")
        cells.append(_titled(f"{name}\n{', '.join(changes[:2])}\n{', '.join(changes[2:])}", picture))
    return cells


def _grid(cells: list[Image.Image], column: int) -> Image.Image:
    """Lay out pictures of one width in rows."""
    width, height = cells[0].width + GAP, max(cell.height for cell in cells) + GAP
    per_row = max(1, column // width)
    block = Image.new("RGB", (column - GAP, math.ceil(len(cells) / per_row) * height - GAP), BACKGROUND)
    for index, cell in enumerate(cells):
        row, column = divmod(index, per_row)
        block.paste(cell, (column * width, row * height))
    return block


def _of_frame(draw: ViewDraw, group: str, frame: int) -> list[int]:
    """Return the numbers of a group's views that are of a frame."""
    return [index for index, of in enumerate(draw.groups[group].frames) if of == frame]


def _changes(colour: ColourDraw, index: int) -> list[str]:
    """Say in words what happens to a view's colours."""
    drawn = {
        "jitter": colour.jitter[index],
        "grey": colour.grayscale[index],
        f"blur {colour.blur[index]:.1f}": colour.blur[index] > 0,
        "solarised": colour.solarise[index],
    }
    return [change for change, happens in drawn.items() if happens]


def _titled(title: str, picture: Image.Image) -> Image.Image:
    """Put lines of text above a picture."""
    head = LINE * (title.count("\n") + 1) + 2
    whole = Image.new("RGB", (picture.width, picture.height + head), BACKGROUND)
    ImageDraw.Draw(whole).multiline_text((0, 0), title, fill=INK, font=ImageFont.load_default(), spacing=3)
    whole.paste(picture, (0, head))
    return whole
