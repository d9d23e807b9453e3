"""Tiles with statistics like natural images: each a picture that repeats without seams."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

OPPONENT = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]) / np.sqrt([[3], [2], [6]])
"""Rows: lightness, red against blue, green against both. The principal axes of the colours of natural images."""


class Palette:
    """Colours that belong together: any lightness, hues around one or two, seldom a loud one."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._centres = generator.normal(scale=(0.12, 0.05), size=(2, 2))
        self._spread = generator.uniform(0.01, 0.06)
        self._loud = generator.choice([0, 0, 0.02, 0.1])
        self._dark, self._bright = np.sort(generator.uniform(0.1, 0.95, size=2)) + np.array([-0.1, 0.1])

    def colours(self, count: int) -> np.ndarray:
        """Return colours (count, 3) in [0, 1]."""
        draw = self._generator
        light = draw.uniform(self._dark, self._bright, count)
        spread = np.where(draw.random((count, 1)) < self._loud, 0.2, self._spread)
        chroma = self._centres[draw.integers(2, size=count)] + spread * draw.normal(size=(count, 2))
        return np.clip(np.column_stack([light * np.sqrt(3), chroma]) @ OPPONENT, 0, 1)

    def ramp(self, values: np.ndarray) -> np.ndarray:
        """Colour values (H, W) of mean 0 and deviation 1 from dark to bright along three colours."""
        colours = self.colours(3)
        colours = colours[np.argsort(colours.sum(axis=1))]
        place = np.clip(values / 4 + 0.5, 0, 1)
        return np.stack([np.interp(place, [0, 0.5, 1], colours[:, c]) for c in range(3)], axis=-1)


def power_law_noise(size: int, exponent: float, generator: np.random.Generator) -> np.ndarray:
    """Return noise (size, size) whose power falls as frequency^-exponent, of mean 0 and deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(
        np.fft.rfft2(generator.normal(size=(size, size))) * frequency ** (-exponent / 2), (size, size)
    )
    return noise / noise.std()


def fractal(size: int, generator: np.random.Generator) -> np.ndarray:
    """Clouds, stone and foliage: 1/f noise with an exponent of its own, and some noise in the hues."""
    exponent, palette = generator.uniform(1.6, 2.6), Palette(generator)
    light = power_law_noise(size, exponent, generator)
    if generator.random() < 0.3:
        light = np.abs(light) * 2 - 1.6  # ridges
    tint = power_law_noise(size, exponent + 0.3, generator)[..., None] * OPPONENT[1 + generator.integers(2)]
    return palette.ramp(light) + 0.05 * tint


def gradient(size: int, generator: np.random.Generator) -> np.ndarray:
    """Almost flat colour, as of sky and painted walls: noise that only has low frequencies, and faint grain."""
    smooth = power_law_noise(size, 4, generator)
    colours = Palette(generator).colours(2)
    grain = power_law_noise(size, generator.uniform(0.5, 1.5), generator)
    mixed = colours[0] + (colours[1] - colours[0]) * 0.5 * np.clip(smooth / 4 + 0.5, 0, 1)[..., None]
    return mixed + generator.uniform(0.01, 0.04) * grain[..., None]


def grating(size: int, generator: np.random.Generator) -> np.ndarray:
    """Stripes, sinusoidal to sharp, bent a little and unevenly coloured."""
    y, x = np.mgrid[:size, :size] * (2 * np.pi / size)
    waves = generator.integers(3, size // 12, size=2) * generator.choice([-1, 1], size=2)
    phase = waves[0] * x + (waves[1] * y if generator.random() < 0.5 else 0)
    phase = phase + generator.uniform(0, 2.5) * power_law_noise(size, 3.2, generator)
    stripes = np.tanh(np.sin(phase) * generator.uniform(0.7, 5)) * 1.4
    return _weather(Palette(generator).ramp(stripes), generator)


def checkers(size: int, generator: np.random.Generator) -> np.ndarray:
    """Fields of two or more colours on a grid."""
    fields = 2 ** int(generator.integers(2, int(np.log2(size)) - 2))
    palette = Palette(generator)
    if generator.random() < 0.5:
        colours = palette.colours(2)[np.indices((fields, fields)).sum(axis=0) % 2]
        colours = colours + generator.normal(scale=0.06, size=(fields, fields, 1))
    else:
        colours = palette.colours(fields * fields).reshape(fields, fields, 3)
    repeat = size // fields
    return _weather(colours.repeat(repeat, axis=0).repeat(repeat, axis=1), generator)


def bricks(size: int, generator: np.random.Generator) -> np.ndarray:
    """Courses of bricks or paving stones with joints between them, every other course shifted."""
    rows = 2 ** int(generator.integers(2, int(np.log2(size)) - 2))
    columns = max(rows // int(generator.choice([1, 2, 4])), 2)
    joint = generator.uniform(0.06, 0.2)
    y = np.arange(size)[:, None] * rows / size
    x = np.arange(size)[None] * columns / size + 0.5 * (np.floor(y) % 2) * generator.choice([0, 1])
    palette = Palette(generator)
    stones = palette.colours(rows * columns)[(np.floor(y) * columns + np.floor(x) % columns).astype(int)]
    across = np.minimum(y % 1, 1 - y % 1), np.minimum(x % 1, 1 - x % 1) * rows / columns
    gap = np.minimum(*across)[..., None] < joint / 2
    return _weather(np.where(gap, palette.colours(1)[0] * 0.6, stones), generator)


def patchwork(size: int, generator: np.random.Generator) -> np.ndarray:
    """Blots of every colour, soft-edged and all about as large: no two places look alike, as in a flower bed.

    The other families have one palette for the whole tile; here the three channels do not know of each other.
    """
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    passes = np.exp(-((frequency * size / generator.uniform(4, 12)) ** 2))
    noise = np.fft.irfft2(np.fft.rfft2(generator.normal(size=(3, size, size))) * passes, (size, size))
    noise = (noise - noise.mean(axis=(1, 2), keepdims=True)) / noise.std(axis=(1, 2), keepdims=True)
    return np.moveaxis(0.5 + 0.4 * np.tanh(1.5 * noise), 0, -1)


def leaves(size: int, generator: np.random.Generator) -> np.ndarray:
    """Dead leaves: opaque discs and blocks of power-law sizes that hide each other, each with gradient and grain.

    Sizes r are distributed as r^-3, which makes the picture look alike at all scales; its power falls about as 1/f^2
    (Lee, Mumford and Huang 2001, "Occlusion models for natural images").
    """
    count, smallest, largest = 5 * size, size / 160, size / 3.5
    radii = (smallest**-2 - generator.random(count) * (smallest**-2 - largest**-2)) ** -0.5
    order = np.argsort(-radii + generator.normal(scale=largest / 12, size=count))  # mostly small ones in front
    palette, square = Palette(generator), generator.random(count) < generator.choice([0, 0.3, 0.8])
    colours = palette.colours(count)
    picture = np.broadcast_to(palette.colours(1), (size, size, 3)).copy()
    centres, angles = generator.uniform(0, size, (count, 2)), generator.uniform(0, np.pi, count)
    ratios, slants = generator.uniform(0.5, 1, count), generator.normal(scale=0.12, size=(count, 2))
    for leaf in order:
        _paint(
            picture, centres[leaf], radii[leaf], ratios[leaf], angles[leaf], square[leaf], colours[leaf], slants[leaf]
        )
    return _weather(picture, generator)


def _paint(
    picture: np.ndarray, centre: np.ndarray, radius: float, ratio: float, angle: float, square: bool,
    colour: np.ndarray, slant: np.ndarray,
) -> None:  # fmt: skip
    """Paint one leaf with smooth edges onto a picture that wraps around."""
    reach = int(radius * (1.5 if square else 1)) + 2
    first = np.floor(centre).astype(int) - reach
    steps = np.arange(2 * reach + 1)
    dy, dx = (first[0] + steps - centre[0])[:, None], (first[1] + steps - centre[1])[None]
    along, across = (np.cos(angle) * dx + np.sin(angle) * dy), (np.cos(angle) * dy - np.sin(angle) * dx) / ratio
    distance = np.maximum(np.abs(along), np.abs(across)) if square else np.hypot(along, across)
    cover = np.clip(radius - distance + 0.5, 0, 1)[..., None]
    shade = colour * (1 + slant[0] * along / radius + slant[1] * across / radius)[..., None]
    where = np.ix_((first[0] + steps) % len(picture), (first[1] + steps) % len(picture))
    under = picture[where]
    picture[where] = under + cover * (shade - under)


def _weather(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Lay faint 1/f noise over a picture, in lightness, as grain, wear and shadow."""
    noise = power_law_noise(len(picture), generator.uniform(1.0, 2.2), generator)
    return picture * (1 + generator.uniform(0.03, 0.15) * noise[..., None])


FAMILIES: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "leaves": leaves, "fractal": fractal, "gradient": gradient,
    "grating": grating, "checkers": checkers, "bricks": bricks, "patchwork": patchwork,
}  # fmt: skip
"""How a tile of each family is made: (size, generator) -> (size, size, 3) about [0, 1]."""
