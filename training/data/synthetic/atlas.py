"""The pool of texture tiles on a device, and sampling from it between texels and between sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from midway_hub._extras import how_to_install
from midway_hub.picture_files import read_picture
from midway_hub.training.data.synthetic.settings import TextureSettings
from midway_hub.training.data.synthetic.textures import FAMILIES

SMALLEST = 16
NOT_IN_TILES = {"sharpness", "recolour"}
"""Settings of how tiles are used, not of what they are: families that differ in these share a pool."""
SCIKIT_IMAGE = Path("scikit-image")
PUBLIC_DOMAIN = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png"),
    *("hubble_deep_field.jpg", "rocket.jpg"),
)
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class Atlas:
    """All tiles and their halvings down to 16 x 16 texels in one picture, each framed by what follows when it repeats.

    Attributes:
        picture: (1, 3, H, W) colours.
        entries: (tiles · levels, 4) per tile and size, in the coordinates of `grid_sample`: where its first texel
            begins, x and y, and what one texel of the full size measures.
        size: Side of a tile in texels.
        levels: Sizes that every tile is there in, the full one included.
    """

    picture: Tensor
    entries: Tensor
    size: int
    levels: int

    def sample(self, tile: Tensor, place: Tensor, footprint: Tensor) -> Tensor:
        """Return colours (3, N), trilinear: between four texels and between two sizes.

        Args:
            tile: (N,) int32 tile.
            place: (N, 2) x and y in texels of the full size; tiles repeat.
            footprint: (N,) texels of the full size that one pixel covers, along a side.
        """
        level = footprint.clamp(1.0, float(1 << (self.levels - 1))).log2_()
        fine = level.floor().clamp_(max=self.levels - 2)
        blend = level.sub_(fine)
        row = tile * self.levels + fine.int()
        place = place - (place * (1 / self.size)).floor_().mul_(self.size) + 0.5
        return torch.lerp(self._bilinear(row, place), self._bilinear(row + 1, place), blend)

    def _bilinear(self, row: Tensor, place: Tensor) -> Tensor:
        entry = self.entries.index_select(0, row)
        grid = torch.addcmul(entry[:, :2], place, entry[:, 2:])
        return F.grid_sample(self.picture, grid.view(1, 1, -1, 2), align_corners=False)[0, :, 0]


def atlas(settings: TextureSettings, device: torch.device) -> Atlas:
    """Return the pool of tiles that settings describe, made once per process and device."""
    return _cached(settings.model_dump_json(exclude=NOT_IN_TILES), device)


@lru_cache(maxsize=8)
def _cached(settings: str, device: torch.device) -> Atlas:
    if device.type == "cpu":
        return lay_out(make_tiles(TextureSettings.model_validate_json(settings)))
    made = _cached(settings, torch.device("cpu"))
    return Atlas(made.picture.to(device), made.entries.to(device), made.size, made.levels)


def lay_out(tiles: list[np.ndarray]) -> Atlas:
    """Set tiles (size, size, 3) and their halvings side by side."""
    size = len(tiles[0])
    sizes = [size >> level for level in range((size // SMALLEST).bit_length())]
    # In its block, the full size is left and the others stand below each other to its right.
    corners = [(0, 0)] + [(size + 2, sum(side + 2 for side in sizes[1:level])) for level in range(1, len(sizes))]
    block = size + 2 + size // 2 + 2, max(size + 2, sum(side + 2 for side in sizes[1:]))
    columns = math.isqrt(len(tiles) - 1) + 1
    width, height = columns * block[0], -(-len(tiles) // columns) * block[1]
    picture = np.zeros((height, width, 3), dtype=np.float32)
    entries = []
    for number, tile in enumerate(tiles):
        for level, (side, (right, below)) in enumerate(zip(sizes, corners, strict=True)):
            x, y = number % columns * block[0] + right, number // columns * block[1] + below
            picture[y : y + side + 2, x : x + side + 2] = np.pad(tile, ((1, 1), (1, 1), (0, 0)), mode="wrap")
            entries.append(
                (2 * (x + 1) / width - 1, 2 * (y + 1) / height - 1, 2 / 2**level / width, 2 / 2**level / height)
            )
            tile = tile.reshape(side // 2, 2, side // 2, 2, 3).mean(axis=(1, 3))
    channels = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]
    return Atlas(channels, torch.tensor(entries, dtype=torch.float32), size, len(sizes))


def make_tiles(settings: TextureSettings) -> list[np.ndarray]:
    """Return the pool's tiles, each (size, size, 3) in [0, 1], families in turn as their weights say."""
    photographs = find_photographs(settings.photographs) if settings.photographs else []
    shares = dict(settings.weights)
    if photographs:
        others = sum(shares.values())
        shares = {name: weight / others * (1 - settings.photograph_share) for name, weight in shares.items()}
        shares["photograph"] = settings.photograph_share
    tiles = []
    for number, family in enumerate(_in_turn(shares, settings.tiles)):
        generator = np.random.Generator(np.random.Philox(key=(1 << 64) | number))
        if family == "photograph":
            tile = _cut(photographs[number % len(photographs)], settings.tile_size, generator)
        else:
            tile = FAMILIES[family](settings.tile_size, generator)
        tiles.append(np.clip(tile, 0, 1))
    return tiles


def _in_turn(shares: dict[str, float], count: int) -> list[str]:
    """Name `count` families such that every beginning of the list has them about in their shares."""
    total, given, order = sum(shares.values()), dict.fromkeys(shares, 0), []
    for number in range(1, count + 1):
        name = max(shares, key=lambda family: shares[family] / total * number - given[family])
        given[name] += 1
        order.append(name)
    return order


def find_photographs(folder: Path) -> list[Path]:
    """Return the pictures in a folder, sorted by name, or those of scikit-image.

    Raises:
        FileNotFoundError: There is no such folder, no picture in it, or no scikit-image.
    """
    if folder == SCIKIT_IMAGE and not folder.exists():
        return _of_scikit_image()
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURES) if folder.is_dir() else []
    if not found:
        raise FileNotFoundError(
            f"textures.photographs: no picture ({', '.join(PICTURES)}) in {folder}; name a folder of pictures or null"
        )
    return found


def _of_scikit_image() -> list[Path]:
    """Return the photographs of scikit-image that are CC0 or in the public domain, by its own list of sources."""
    try:
        import skimage
    except ImportError as error:
        raise FileNotFoundError(
            f"textures.photographs=scikit-image: scikit-image is not installed; {how_to_install('skimage')}, or name a "
            "folder of pictures, or null"
        ) from error
    folder = Path(skimage.__file__).parent / "data"
    found = [path for path in (folder / name for name in PUBLIC_DOMAIN) if path.is_file()]
    if not found:
        raise FileNotFoundError(f"textures.photographs=scikit-image: none of its pictures is in {folder}")
    return found


def _cut(path: Path, size: int, generator: np.random.Generator) -> np.ndarray:
    """Cut a square out of a photograph and fade its edges into each other, so that it repeats without seams."""
    margin = size // 8
    picture = Image.fromarray(read_picture(path, "photograph"))
    side = int(min(picture.size) * generator.uniform(0.5, 1))
    left, top = (int(generator.integers(length - side + 1)) for length in picture.size)
    square = picture.resize((size + margin,) * 2, Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    pixels = np.asarray(square, dtype=np.float64) / 255
    fade = (np.arange(margin) + 0.5)[:, None] / margin
    for _ in range(2):
        pixels[:margin] = fade[..., None] * pixels[:margin] + (1 - fade[..., None]) * pixels[size : size + margin]
        pixels = pixels[:size].swapaxes(0, 1)
    return pixels
