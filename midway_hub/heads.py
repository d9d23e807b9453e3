"""What heads a network carries: every number of a flow or segmentation head, documented and validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self, TypeAlias

from midway_hub._messages import shown

IGNORE = 255
"""The label of pixels that count nowhere."""

LARGEST = 8192
"""The largest that a width, a window or a grid of a head may be: beyond any head, and short of all memory."""

MOST_SCALES = 64
FEATURES = ("encoder", "backward")
FLOW_KINDS = ("dpt", "correlation")
FIRST = ("zero", "matching", "coarse")
READS = ("dynamics", "decoder")
MOST_UPDATES = 256
NECKS = ("pyramid", "lateral", "none")


@dataclass(frozen=True)
class HeadConfig:
    """Base of the heads' configurations: plain data in `config.json`, validated here."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list | tuple):
                object.__setattr__(self, field.name, _frozen(value))
        self._check()

    def _check(self) -> None:
        """Raise a ValueError for numbers that do not work."""

    @classmethod
    def of(cls, values: Self | Mapping[str, Any]) -> Self:
        """Make a configuration of keywords, or return the one that is given.

        Raises:
            ValueError: An unknown keyword, or a number that does not work.
        """
        if isinstance(values, cls):
            return values
        if not isinstance(values, Mapping):
            raise ValueError(f"{cls.__name__} is made of keywords, got {type(values).__name__}")
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"{cls.__name__} has no {', '.join(unknown)}; there are: {', '.join(known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as `config.json` holds it."""
        return {name: _thawed(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class PairDecoderConfig(HeadConfig):
    """A decoder of one frame given another (CroCo v2). The defaults are those of Midway's comparison.

    Attributes:
        dim: Width.
        depth: Blocks.
        heads: Attention heads; the width over them is a multiple of 4, as heads turn by place.
    """

    dim: int = 192
    depth: int = 12
    heads: int = 6

    def _check(self) -> None:
        for name in ("dim", "depth", "heads"):
            _counts(name, (getattr(self, name),))
        if self.dim % (4 * self.heads):
            raise ValueError(f"a decoder's dim over its heads is a multiple of 4, got {self.dim} over {self.heads}")


@dataclass(frozen=True)
class FlowHeadConfig(HeadConfig):
    """A DPT head that reads optical flow off the dynamics (paper App. B.4). The defaults are CroCo v2's sizes.

    Attributes:
        kind: `dpt`; see `CorrelationHeadConfig` for the other kind.
        layer_dims: Widths of the four reassembled maps, fine (1/4 of the frame) to coarse (1/32).
        feature_dim: Width of the fused maps.
        last_dim: Width before the output layer.
        scale_bounds: Least and largest scale of the Laplacian in pixels (a and b of the bounded loss).
        tile: Height and width in pixels of the training crop, which tiled flow takes its windows from.
        tiled: Whether flow is estimated in such windows unless told otherwise; False: on whole frames.
        reads: What flow is read off: the `dynamics`, or the `decoder` of a network that completes frames (CroCo v2).
    """

    layer_dims: tuple[int, ...] = (96, 192, 384, 768)
    feature_dim: int = 256
    last_dim: int = 32
    scale_bounds: tuple[float, float] = (0.25, 4.0)
    tile: tuple[int, int] = (320, 384)
    tiled: bool = False
    reads: str = "dynamics"
    kind: str = "dpt"

    @classmethod
    def of(cls, values: Any) -> Any:
        """Make the configuration of a flow head of either kind, by its `kind`; see `HeadConfig.of`."""
        if cls is FlowHeadConfig and isinstance(values, CorrelationHeadConfig):
            return values
        if cls is FlowHeadConfig and isinstance(values, Mapping) and "kind" in values:
            _one_of("kind", values["kind"], FLOW_KINDS)
            if values["kind"] == "correlation":
                return CorrelationHeadConfig.of(values)
        return super().of(values)

    def _check(self) -> None:
        _one_of("kind", self.kind, ("dpt",))
        _one_of("reads", self.reads, READS)
        for name, count in (("layer_dims", 4), ("tile", 2)):
            _widths(name, getattr(self, name), count)
        _counts("feature_dim", (self.feature_dim,))
        _counts("last_dim", (self.last_dim,))
        _bounds(self.scale_bounds)


@dataclass(frozen=True)
class CorrelationHeadConfig(HeadConfig):
    """A head that matches both frames everywhere and updates an estimate recurrently (after RAFT and PWC-Net).

    It sees whole frames of any size. The defaults are those of the network that comes with the package.

    Attributes:
        kind: `correlation`; see `FlowHeadConfig` for the other kind.
        pyramid_dims: Widths of the head's own features at 1/2, 1/4 and 1/8 of the frame.
        depth: Residual units at 1/8.
        match_dim: Width of what is correlated.
        hidden_dim: Width of the recurrent state.
        context_dim: Width of what the update reads of the source besides.
        motion_dim: Width of what it reads of correlations and estimate.
        levels: Levels of the correlation pyramid.
        radius: Cells that are looked up to each side of the estimate, at every level.
        updates: Updates at 1/8 unless told otherwise.
        refinements: Refinements at 1/4.
        refine_dim: Their width.
        refine_radius: Cells of 1/4 that they compare to each side.
        first: What updates start from: `zero`; `matching` for where each place's best matches lie; or, outside of
            training, `coarse` for the flow of frames of half the size where that explains the frames better.
        polish: Gauss-Newton steps on the frames themselves after the network, outside of training; 0: none.
        dynamics: Whether the update reads what Midway's dynamics make of the pair: predictions and motion latents.
        encoder_side: Short side in pixels at which the encoder sees frames, which are never enlarged; None: as they
            are. The head itself sees them at their own size.
        scale_bounds: Least and largest scale of the Laplacian in pixels (a and b of the bounded loss).
        tile: Height and width in pixels of the training crop.
    """

    kind: str = "correlation"
    pyramid_dims: tuple[int, ...] = (32, 48, 96)
    depth: int = 2
    match_dim: int = 96
    hidden_dim: int = 64
    context_dim: int = 64
    motion_dim: int = 64
    levels: int = 4
    radius: int = 3
    updates: int = 4
    refinements: int = 2
    refine_dim: int = 64
    refine_radius: int = 2
    first: str = "zero"
    polish: int = 0
    dynamics: bool = True
    encoder_side: int | None = None
    scale_bounds: tuple[float, float] = (0.25, 16.0)
    tile: tuple[int, int] = (320, 384)

    def _check(self) -> None:
        _one_of("kind", self.kind, ("correlation",))
        _one_of("first", self.first, FIRST)
        _widths("pyramid_dims", self.pyramid_dims, 3)
        _widths("tile", self.tile, 2)
        for name in ("match_dim", "hidden_dim", "context_dim", "refine_dim"):
            _counts(name, (getattr(self, name),))
        for name, least, most in (
            ("motion_dim", 3, LARGEST),
            ("depth", 0, 64),
            ("levels", 1, 8),
            ("radius", 0, 16),
            ("refine_radius", 0, 16),
            ("updates", 1, MOST_UPDATES),
            ("refinements", 1, MOST_UPDATES),
            ("polish", 0, 16),
        ):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{name} must be a whole number from {least} to {most}, got {shown(value)}")
        if not isinstance(self.dynamics, bool):
            raise ValueError(f"dynamics must be true or false, got {shown(self.dynamics)}")
        if self.encoder_side is not None:
            _counts("encoder_side", (self.encoder_side,))
        _bounds(self.scale_bounds)


AnyFlowHeadConfig: TypeAlias = FlowHeadConfig | CorrelationHeadConfig


@dataclass(frozen=True)
class SegmentationHeadConfig(HeadConfig):
    """A head that tells classes apart: one linear layer, or UperNet.

    Attributes:
        name: `linear` or `upernet`.
        classes: Names of the classes, in the order of their labels.
        palette: Red, green and blue of every class, 0 to 255.
        features: `encoder` for the blocks of the plain (teacher) encoder, `backward` for the backward features of the
            dynamics' levels, coarse to fine (linear only).
        layers: Encoder blocks that are read, negatives from the last; with `backward`, levels of the dynamics. The
            linear head joins them, UperNet wants four.
        batch_norm: Whether the linear head normalises its inputs by batch (DINOv2's readout); the paper's does not.
        dropout: Share of the channels that the classifier does not see in training.
        channels: Width of UperNet.
        pool_scales: Grids that UperNet's pyramid pooling reduces the coarsest map to.
        neck: What makes UperNet's four scales of maps that are all at 1/16: `pyramid` (Feature2Pyramid of MAE, BEiT and
            iBOT), `lateral` (mmsegmentation's MultiLevelNeck), or `none`.
        slide: Side of the window and step between windows in pixels, for sliding inference; None: whole frames.
    """

    name: str = "linear"
    classes: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    features: str = "encoder"
    layers: tuple[int, ...] = (-1,)
    batch_norm: bool = False
    dropout: float = 0.0
    channels: int = 512
    pool_scales: tuple[int, ...] = (1, 2, 3, 6)
    neck: str = "pyramid"
    slide: tuple[int, int] | None = None

    def _check(self) -> None:
        for name in ("classes", "palette", "layers", "pool_scales"):
            _sequence(name, getattr(self, name))
        _one_of("name", self.name, ("linear", "upernet"))
        _one_of("features", self.features, FEATURES)
        _one_of("neck", self.neck, NECKS)
        if not 2 <= len(self.classes) <= IGNORE:
            raise ValueError(f"a segmentation head needs 2 to {IGNORE} classes, got {len(self.classes)}")
        if not all(isinstance(name, str) for name in self.classes):
            raise ValueError(f"classes of a segmentation head are names, got {shown(self.classes)}")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("two classes of the segmentation head have the same name")
        if len(self.palette) != len(self.classes):
            raise ValueError(f"palette has {len(self.palette)} colours for {len(self.classes)} classes")
        if not all(
            isinstance(colour, tuple) and len(colour) == 3 and all(map(_is_byte, colour)) for colour in self.palette
        ):
            raise ValueError(f"palette is made of red, green and blue from 0 to 255, got {shown(self.palette)}")
        if not self.layers:
            raise ValueError("layers names no features to read")
        if not all(type(layer) is int for layer in self.layers) or len(self.layers) > LARGEST:
            raise ValueError(f"layers must be numbers of at most {LARGEST} blocks or levels, got {shown(self.layers)}")
        if self.name == "upernet" and (len(self.layers) != 4 or self.features != "encoder"):
            raise ValueError(
                f"upernet reads four encoder blocks, got {len(self.layers)} of the {self.features}: "
                "the paper reads backward features with the linear head only"
            )
        if not (_is_finite(self.dropout) and 0 <= self.dropout < 1):
            raise ValueError(f"dropout must be at least 0 and below 1, got {shown(self.dropout)}")
        _counts("channels", (self.channels,))
        _counts("pool_scales", self.pool_scales)
        if len(self.pool_scales) > MOST_SCALES:
            raise ValueError(f"pool_scales are at most {MOST_SCALES} grids, got {len(self.pool_scales)}")
        if self.slide is not None:
            _sequence("slide", self.slide)
            _counts("slide", self.slide)
            if len(self.slide) != 2:
                raise ValueError(f"slide is the side of a window and its step, got {shown(self.slide)}")
            if self.slide[1] > self.slide[0]:
                raise ValueError(
                    f"slide steps {self.slide[1]} pixels with windows of {self.slide[0]}: pixels are missed"
                )


def _widths(name: str, values: Any, count: int) -> None:
    _sequence(name, values)
    if len(values) != count:
        raise ValueError(f"{name} of a flow head are {_NUMBERS[count]}, got {len(values)}")
    _counts(name, values)


def _bounds(values: Any) -> None:
    _sequence("scale_bounds", values)
    if len(values) != 2:
        raise ValueError(f"scale_bounds of a flow head are two numbers, got {len(values)}")
    if not all(_is_finite(bound) for bound in values) or not 0 < values[0] < values[1]:
        raise ValueError(f"scale_bounds must be positive and rising, got {shown(values)}")


_NUMBERS = {2: "two numbers", 3: "three widths", 4: "four widths"}


def _one_of(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {shown(value)}")


def _sequence(name: str, values: Any) -> None:
    if not isinstance(values, tuple):
        raise ValueError(f"{name} must be a list, got {shown(values)}")


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _is_byte(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= 255


def _counts(name: str, values: Sequence[Any]) -> None:
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be whole numbers of at least 1, got {shown(value)}")
        if value > LARGEST:
            raise ValueError(f"{name} must be at most {LARGEST}, got {shown(value)}")


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _thawed(value: Any) -> Any:
    return list(map(_thawed, value)) if isinstance(value, list | tuple) else value


__all__ = [
    "IGNORE",
    "AnyFlowHeadConfig",
    "CorrelationHeadConfig",
    "FlowHeadConfig",
    "HeadConfig",
    "SegmentationHeadConfig",
]
