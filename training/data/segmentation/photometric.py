"""mmsegmentation's photometric distortion, in OpenCV's 8-bit arithmetic."""

from __future__ import annotations

import numpy as np

BRIGHTNESS, CONTRAST, SATURATION, HUE = 32, (0.5, 1.5), (0.5, 1.5), 18
HUES = 180  # OpenCV's hue is degrees / 2, so that it fits into 8 bits
FIXED = 12  # bits after the point of OpenCV's 8-bit HSV


def distort(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast, saturation and hue, each with probability 0.5.

    Contrast is changed before or after saturation and hue, with probability 0.5. Results are clipped and cut off to
    whole numbers after each step, as mmsegmentation's `PhotoMetricDistortion` does.

    Args:
        image: (H, W, 3) uint8 RGB.
        generator: Where the random numbers come from.

    Returns:
        (H, W, 3) uint8 RGB.
    """

    def happens() -> bool:
        return bool(generator.integers(2))

    if happens():
        image = _affine(image, 1, generator.uniform(-BRIGHTNESS, BRIGHTNESS))
    contrast_first = happens()
    if contrast_first and happens():
        image = _affine(image, generator.uniform(*CONTRAST), 0)
    saturation = generator.uniform(*SATURATION) if happens() else None
    turn = int(generator.integers(-HUE, HUE)) if happens() else None
    image = change_colours(image, saturation, turn)
    if not contrast_first and happens():
        image = _affine(image, generator.uniform(*CONTRAST), 0)
    return image


def change_colours(image: np.ndarray, saturation: float | None, turn: int | None) -> np.ndarray:
    """Multiply the saturation, then turn the hue by units of 2 degrees; None leaves either, rounding included."""
    if saturation is not None:
        hsv = rgb_to_hsv(image)
        hsv[..., 1] = _affine(hsv[..., 1], saturation, 0)
        image = hsv_to_rgb(hsv)
    if turn is not None:
        hsv = rgb_to_hsv(image)
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + turn) % HUES
        image = hsv_to_rgb(hsv)
    return image


def rgb_to_hsv(image: np.ndarray) -> np.ndarray:
    """Return hue (0 to 179), saturation and value of (H, W, 3) uint8 RGB, as OpenCV's 8-bit COLOR_RGB2HSV."""
    red, green, blue = np.moveaxis(image.astype(np.int32), 2, 0)
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    sixth = np.where(
        value == red, green - blue, np.where(value == green, blue - red + 2 * spread, red - green + 4 * spread)
    )
    half = 1 << FIXED - 1
    hue = sixth * _PER_HUE[spread] + half >> FIXED
    saturation = spread * _PER_SATURATION[value] + half >> FIXED
    return np.stack([np.where(hue < 0, hue + HUES, hue), saturation, value], axis=2).astype(np.uint8)


def hsv_to_rgb(hsv: np.ndarray) -> np.ndarray:
    """Return RGB (H, W, 3) uint8 of OpenCV's 8-bit hue, saturation and value.

    Cut off to whole numbers, as OpenCV's vector code does from 4.1.1 on (the columns that this leaves over are rounded
    there).
    """
    hue, saturation, value = np.moveaxis(hsv.astype(np.float32), 2, 0)
    saturation, value = saturation * np.float32(1 / 255), value * np.float32(1 / 255)
    sector = hue * np.float32(6 / HUES)
    whole = sector.astype(np.int32)
    part = sector - whole
    least = value * (1 - saturation)
    falling = value * (1 - saturation * part)
    rising = value * (1 - saturation * (1 - part))
    choices = np.stack([value, rising, least, falling])
    order = np.moveaxis(_SECTORS[whole % 6], 2, 0)  # of each pixel: which choice is red, green and blue
    rgb = np.take_along_axis(choices, order, axis=0) * np.float32(255)
    return np.moveaxis(rgb, 0, 2).clip(0, 255).astype(np.uint8)


def _affine(values: np.ndarray, factor: float, offset: float) -> np.ndarray:
    return np.clip(values.astype(np.float32) * np.float32(factor) + np.float32(offset), 0, 255).astype(np.uint8)


def _reciprocals(numerator: float) -> np.ndarray:
    table = np.zeros(256, dtype=np.int32)
    table[1:] = np.rint((1 << FIXED) * numerator / np.arange(1, 256))
    return table


_PER_SATURATION, _PER_HUE = _reciprocals(255), _reciprocals(HUES / 6)
_VALUE, _RISING, _LEAST, _FALLING = range(4)
_SECTORS = np.array(
    [
        (_VALUE, _RISING, _LEAST),
        (_FALLING, _VALUE, _LEAST),
        (_LEAST, _VALUE, _RISING),
        (_LEAST, _FALLING, _VALUE),
        (_RISING, _LEAST, _VALUE),
        (_VALUE, _LEAST, _FALLING),
    ]
)
