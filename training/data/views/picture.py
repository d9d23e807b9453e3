"""A picture of the views of one frame pair, to look at."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from midway_hub.training.data.frame_pair import FramePair
from midway_hub.training.data.views.apply import apply_views
from midway_hub.training.data.views.boxes import Box
from midway_hub.training.data.views.draw import ColourDraw, CropDraw, ViewDraw

WIDTH, GAP, LINE = 1240, 8, 14
ROWS = ((("globals", "dense"), 198), (("locals",), 147))
"""Which groups stand together, and the side of their views in the picture."""
COLOURS = {"initial": "white", "globals": "orangered", "dense": "deepskyblue", "locals": "gold"}
BACKGROUND, INK = (24, 24, 24), (230, 230, 230)


def contact_sheet(pair: FramePair, draw: ViewDraw) -> Image.Image:
    """Lay out a pair's frames with the boxes drawn in, and under each frame the views cut from it.

    Args:
        pair: The two frames.
        draw: What was drawn for them.

    Returns:
        An RGB image 1240 pixels wide.
    """
    views = apply_views(pair, draw)
    columns = [_column(pair, draw, views, late) for late in (False, True)]
    sheet = Image.new("RGB", (WIDTH, max(column.height for column in columns)), BACKGROUND)
    for index, column in enumerate(columns):
        sheet.paste(column, (index * WIDTH // 2, 0))
    return sheet


def _column(pair: FramePair, draw: ViewDraw, views: dict[str, Tensor], late: bool) -> Image.Image:
    """Draw one frame and its views."""
    frame = Image.fromarray(pair.second if late else pair.first)
    title = (
        f"frame y: {pair.frames[1]}, {pair.seconds:.2f} s later" if late else f"frame x: {pair.frames[0]}, {pair.name}"
    )
    parts = [_titled(title, _with_boxes(frame, draw, late))]
    for groups, side in ROWS:
        cells = [cell for group in groups if group in draw.groups for cell in _cells(group, draw, views, late, side)]
        if cells:
            parts.append(_grid(cells))
    column = Image.new("RGB", (WIDTH // 2, sum(part.height + GAP for part in parts)), BACKGROUND)
    top = 0
    for part in parts:
        column.paste(part, (GAP // 2, top))
        top += part.height + GAP
    return column


def _with_boxes(frame: Image.Image, draw: ViewDraw, late: bool) -> Image.Image:
    width = WIDTH // 2 - GAP
    scale = width / frame.width
    picture = frame.resize((width, max(1, round(frame.height * scale))))
    pen = ImageDraw.Draw(picture)
    for group, crops in draw.groups.items():
        for index in _of_frame(crops, late):
            _outline(pen, crops.boxes[index].tolist(), scale, group)
    if draw.initial is not None:
        _outline(pen, draw.initial, scale, "initial")
    return picture


def _outline(pen: ImageDraw.ImageDraw, box: Box, scale: float, kind: str) -> None:
    top, left, height, width = (scale * side for side in box)
    pen.rectangle((left, top, left + width, top + height), outline=COLOURS[kind], width=1 if kind == "locals" else 2)


def _cells(group: str, draw: ViewDraw, views: dict[str, Tensor], late: bool, side: int) -> list[Image.Image]:
    """Return one frame's views of a group, each with its name and with what was changed."""
    crops, cells = draw.groups[group], []
    for number, index in enumerate(_of_frame(crops, late), start=1):
        picture = Image.fromarray(views[group][index].permute(1, 2, 0).numpy()).resize((side, side))
        changes = _changes(crops.colour, index) + ["mirrored"] * bool(crops.flips[index])
        name = {"globals": f"global {number}", "locals": f"local {number}", "dense": "dynamics"}[group]
        cells.append(_titled(f"{name}\n{', '.join(changes[:2])}\n{', '.join(changes[2:])}", picture))
    return cells


def _grid(cells: list[Image.Image]) -> Image.Image:
    """Lay out pictures of one size in rows."""
    width, height = cells[0].width + GAP, cells[0].height + GAP
    per_row = WIDTH // 2 // width
    block = Image.new("RGB", (WIDTH // 2 - GAP, math.ceil(len(cells) / per_row) * height - GAP), BACKGROUND)
    for index, cell in enumerate(cells):
        row, column = divmod(index, per_row)
        block.paste(cell, (column * width, row * height))
    return block


def _of_frame(crops: CropDraw, late: bool) -> range:
    half = len(crops) // 2
    return range(half, len(crops)) if late else range(half)


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
