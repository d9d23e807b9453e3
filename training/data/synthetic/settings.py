"""What the synthetic world is made of and how it moves: ranges that every world is drawn from."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from midway_hub.training.data.synthetic.checks import Range, check_range, check_weights
from midway_hub.training.data.synthetic.classes import MAX_OBJECTS, SHAPES
from midway_hub.training.settings import Settings

ALL_SHAPES = dict.fromkeys(SHAPES, 1.0)
ALL_TEXTURES = {
    "leaves": 5.0, "fractal": 3.0, "gradient": 1.0, "grating": 1.0, "checkers": 1.0, "bricks": 1.0, "patchwork": 0.0,
}  # fmt: skip


class TextureSettings(Settings):
    """The pool of tiles that all worlds take their textures from, cut, turned, scaled and recoloured for each layer.

    A pool is a pure function of these settings, made once per process.
    """

    tiles: int = Field(default=64, ge=1, le=4096)
    """Number of tiles in the pool."""

    tile_size: int = 256
    """Side of a tile in texels, a power of two."""

    weights: dict[str, float] = ALL_TEXTURES
    """Share of tiles per family: leaves (dead leaves), fractal (1/f noise), gradient, grating, checkers, bricks,
    patchwork (blots of every colour, unlike nature: none by default)."""

    photographs: Path | None = None
    """Folder of photographs, of which `photograph_share` of the tiles are cut; none by default. `scikit-image` stands
    for those in the public domain that come with that package (extra `photographs`)."""

    photograph_share: float = Field(default=0.4, gt=0, le=1)
    """Share of tiles cut from photographs, where a folder is given."""

    sharpness: Range = (0.55, 1.0)
    """Texels per pixel of a layer in the first frame; below 1 a tile is enlarged."""

    recolour: float = Field(default=1.0, ge=0, le=1)
    """How much contrast, brightness and tint of a tile change from layer to layer; 0 leaves them as they are."""

    @model_validator(mode="after")
    def _valid(self) -> TextureSettings:
        check_weights("textures.weights", self.weights, tuple(ALL_TEXTURES))
        check_range("textures.sharpness", self.sharpness, 0.05, 4)
        if self.tile_size < 32 or self.tile_size & (self.tile_size - 1):
            raise ValueError(f"textures.tile_size must be a power of two from 32 on, got {self.tile_size}")
        return self


class MotionSettings(Settings):
    """How camera and objects move from one frame to the next; all are drawn, then slowed down to `displacement`."""

    displacement: Range = (0.02, 0.25)
    """Displacement of the fastest layer, in frame sides (the shorter one); a world's own limit is uniform in it."""

    camera_shift: float = Field(default=0.25, ge=0, le=2)
    """Largest sideways and vertical translation of the camera; the nearest objects are at distance 1.5."""

    camera_forward: float = Field(default=0.3, ge=0, le=1)
    """Largest translation of the camera along its axis, forwards and backwards."""

    camera_turn: float = Field(default=5.0, ge=0, le=15)
    """Largest yaw and pitch in degrees."""

    camera_roll: float = Field(default=5.0, ge=0, le=30)
    """Largest rotation around the camera's axis in degrees."""

    camera_zoom: float = Field(default=0.08, ge=0, le=0.5)
    """Largest change of the focal length, relative."""

    still_camera: float = Field(default=0.15, ge=0, le=1)
    """Probability that the camera does not move at all."""

    object_shift: float = Field(default=0.2, ge=0, le=1)
    """Largest motion of an object of its own, in frame sides."""

    object_turn: float = Field(default=25.0, ge=0, le=90)
    """Largest rotation of an object of its own, in degrees."""

    object_scale: float = Field(default=0.12, ge=0, le=0.5)
    """Largest growth of an object of its own, relative."""

    background_shift: float = Field(default=0.0, ge=0, le=1)
    """Largest motion of the background of its own, in frame sides."""

    still_object: float = Field(default=0.25, ge=0, le=1)
    """Probability that an object does not move of its own."""

    warp: float = Field(default=0.0, ge=0, le=0.05)
    """Largest displacement of a smooth warp of the whole frame, in frame sides, as of cloth or water."""

    warp_probability: float = Field(default=1.0, ge=0, le=1)
    """Probability of such a warp."""

    snap: int = Field(default=0, ge=0)
    """Rounds own motions, per axis, to whole multiples of so many pixels; 0 does not round."""

    @field_validator("displacement")
    @classmethod
    def _displacement(cls, value: Range) -> Range:
        check_range("motion.displacement", value, 0, 1)
        return value


class EffectSettings(Settings):
    """What stands between a world and its frames."""

    shading: float = Field(default=0.5, ge=0, le=1)
    """Probability that an object is shaded as if it bulged towards the camera."""

    blur_probability: float = Field(default=0.2, ge=0, le=1)
    """Probability of motion blur."""

    blur_shutter: Range = (0.1, 0.4)
    """Share of the time between two frames that the shutter is open."""

    blur_samples: int = Field(default=5, ge=3, le=31)
    """Moments that a blurred frame is the mean of, an odd number."""

    lighting_probability: float = Field(default=0.5, ge=0, le=1)
    """Probability that exposure, tint and a light gradient change from one frame to the next."""

    lighting_strength: float = Field(default=0.15, ge=0, le=1)
    """Largest relative change of brightness at a place."""

    noise_probability: float = Field(default=0.5, ge=0, le=1)
    """Probability of sensor noise."""

    noise_strength: float = Field(default=0.03, ge=0, le=0.5)
    """Largest standard deviation of the noise, of the full scale."""

    compression_probability: float = Field(default=0.0, ge=0, le=1)
    """Probability that both frames have gone through a JPEG encoder, on the CPU wherever they are rendered."""

    compression_quality: Range = (30.0, 90.0)
    """Quality of the encoder, as Pillow counts it."""

    @field_validator("blur_samples")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"effects.blur_samples must be odd, so that one is in the middle, got {value}")
        return value

    @field_validator("compression_quality")
    @classmethod
    def _quality(cls, value: Range) -> Range:
        check_range("effects.compression_quality", value, 1, 95)
        return value

    @field_validator("blur_shutter")
    @classmethod
    def _shutter(cls, value: Range) -> Range:
        check_range("effects.blur_shutter", value, 0, 1)
        return value


class WorldSettings(Settings):
    """A family of worlds: a background, perhaps a ground and a wall, and flat objects at several distances."""

    size: tuple[int, int] = (128, 128)
    """Height and width of the frames in pixels."""

    objects: tuple[int, int] = (2, 5)
    """Fewest and most objects."""

    object_radius: Range = (0.1, 0.35)
    """Radius of an object in frame sides; log-uniform."""

    depth: Range = (1.5, 8.0)
    """Distance of the objects; the background is at twice the largest one, so this sets the parallax."""

    ground_probability: float = Field(default=0.5, ge=0, le=1)
    """Probability of a ground that reaches to a horizon."""

    wall_probability: float = Field(default=0.25, ge=0, le=1)
    """Probability of a wall to the left or right, seen at an angle."""

    tilt: float = Field(default=20.0, ge=0, le=45)
    """Largest angle in degrees that background and objects are turned away from facing the camera."""

    shapes: dict[str, float] = ALL_SHAPES
    """Weight of each shape of object; the classes of the world besides background, ground and wall."""

    structures: float = Field(default=0.0, ge=0, le=1)
    """Probability that a thin or holed shape is cut out of an object's outline: a chair, a lattice, a branch, a mesh.
    Its class stays that of the outline."""

    articulation: float = Field(default=0.0, ge=0, le=1)
    """Probability that an object is a limb of the one before: a bar that is carried along and turns around a joint in
    its middle. Its class stays its own."""

    seconds: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    """Time that passes between two frames, for those who ask; the motion does not depend on it."""

    textures: TextureSettings = TextureSettings()
    """The textures."""

    motion: MotionSettings = MotionSettings()
    """The motion."""

    effects: EffectSettings = EffectSettings()
    """Blur, light and noise."""

    @model_validator(mode="after")
    def _valid(self) -> WorldSettings:
        height, width = self.size
        if min(self.size) < 16:
            raise ValueError(f"size must be at least 16 x 16 pixels, got {height} x {width}")
        if max(self.size) > 3 * min(self.size):
            raise ValueError(f"size must not be longer than 3 to 1, got {height} x {width}")
        if not 0 <= self.objects[0] <= self.objects[1] <= MAX_OBJECTS:
            raise ValueError(f"objects is a range [fewest, most] within [0, {MAX_OBJECTS}], got {list(self.objects)}")
        check_range("object_radius", self.object_radius, 0.01, 1)
        check_range("depth", self.depth, 1, 100)
        check_weights("shapes", self.shapes, SHAPES)
        self._check_snapping()
        return self

    def _check_snapping(self) -> None:
        """Refuse a limit on displacement that would slow snapped motions down to broken multiples."""
        motion = self.motion
        reach = max(motion.object_shift, motion.background_shift) + 0.75 * motion.snap / min(self.size)
        if motion.snap and motion.displacement[0] < reach:
            raise ValueError(
                f"motion.snap={motion.snap} needs a motion.displacement that slows nothing down: at least {reach:.3f} "
                f"with these shifts, got {list(motion.displacement)}; raise it or shorten the shifts"
            )
