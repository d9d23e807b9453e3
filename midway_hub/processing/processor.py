"""`MidwayImageProcessor`: how frames are fitted and normalised, and how that is undone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature

from midway_hub.processing.checks import (
    check_dense,
    check_lengths,
    choice,
    count,
    pair,
    refuse_unknown,
    target_size,
    three_numbers,
)
from midway_hub.processing.describe import fit_in_words, placement_in_words
from midway_hub.processing.frames import load_clips, load_frames, nesting, stack
from midway_hub.processing.geometry import FITS, Geometry, Size, by, from_model, place, to_model
from midway_hub.registry import IMAGENET_MEAN, IMAGENET_STD

RESAMPLES = ("bicubic", "bilinear")


class MidwayInputs(BatchFeature):
    """What the processor returns: `pixel_values`, ready for `network(**inputs)`, and where the frames lie in them.

    Attributes:
        pixel_values: (B, 3, H, W) for images, (B, T, 3, H, W) for clips; float32, normalised.
        geometry: What `MidwayImageProcessor.undo` needs. It is no model input, so `**inputs` leaves it out; `.to()`,
            copies and pickles keep it.
    """

    def __init__(self, data: dict[str, Any], *, geometry: Geometry) -> None:
        super().__init__(data)
        self.geometry = geometry

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class MidwayProcessorSettings(TypedDict, total=False):
    """The arguments of `MidwayImageProcessor`, which `from_pretrained` can override."""

    fit: str
    size: int | Sequence[int] | None
    multiple: int
    image_mean: Sequence[float]
    image_std: Sequence[float]
    resample: str


class MidwayImageProcessor(BaseImageProcessor):
    """Turns frames of any kind and size into model input, and dense outputs back into the frames' own size.

    Every frame becomes RGB in [0, 1], is fitted, padded on the right and at the bottom by repeating its edge until
    both sides are multiples of `multiple`, and normalised per channel. How it is fitted:

    - "pad": it keeps its size. With `size`, it is padded to at least that.
    - "resize": to exactly `size`; the aspect ratio is not kept.
    - "shortest": its short side becomes `size` (one number); the aspect ratio is kept.
    - "contain": it becomes as large as fits into `size`, the aspect ratio is kept, the rest is padded.
    - "crop": it becomes as small as covers `size`, the aspect ratio is kept, and the centre is cut out.

    All of it is differentiable with respect to float tensors and stays on their device.

    Args:
        fit: One of "pad", "resize", "shortest", "contain", "crop".
        size: (height, width) in pixels, or one number for a square (for "shortest": the short side). Optional for
            "pad", needed by the others.
        multiple: Number that both sides of the model input are multiples of: the network's patch size.
        image_mean: Mean that is subtracted, per RGB channel.
        image_std: Standard deviation that is divided by, per RGB channel.
        resample: "bicubic" or "bilinear", antialiased, without aligned corners, clamped to [0, 1].
        **kwargs: Only what transformers writes into `preprocessor_config.json` beside these.

    Raises:
        ValueError: An argument is out of range; the message says what is wanted.
        TypeError: An argument that does not exist.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012
    valid_kwargs = MidwayProcessorSettings

    def __init__(
        self,
        *,
        fit: str = "pad",
        size: int | Sequence[int] | None = None,
        multiple: int = 16,
        image_mean: Sequence[float] = IMAGENET_MEAN,
        image_std: Sequence[float] = IMAGENET_STD,
        resample: str = "bicubic",
        **kwargs: Any,
    ) -> None:
        refuse_unknown(kwargs, MidwayProcessorSettings.__annotations__)
        super().__init__()
        self.fit = choice("fit", fit, FITS)
        self.size = target_size(size, fit)
        self.multiple = count("multiple", multiple)
        self.image_mean = three_numbers("image_mean", image_mean)
        self.image_std = three_numbers("image_std", image_std)
        if min(self.image_std) <= 0:
            raise ValueError(f"image_std must be positive, got {self.image_std}")
        self.resample = choice("resample", resample, RESAMPLES)

    def __call__(self, images: Any = None, *, clips: Any = None, return_tensors: str = "pt") -> MidwayInputs:
        """Turns images or clips into one batch of model input.

        A frame is a path, an http(s) URL, a PIL image, a numpy array (H, W, C) or a torch tensor (C, H, W); the
        notes of `midway_hub.processing` give other layouts and the number types. How deep frames are nested says what
        they are:

        - a frame: a batch of one image;
        - a list of frames, an array (B, H, W, C), a tensor (B, C, H, W): a batch of images;
        - a list of lists or stacks, an array (B, T, H, W, C), a tensor (B, T, C, H, W): a batch of clips.

        A list of frames that is one clip is passed by name, as `clips=`.

        Args:
            images: Frames, nested as above.
            clips: One clip, or a batch of clips, instead of `images`.
            return_tensors: "pt"; there for callers that pass it to every processor.

        Returns:
            `pixel_values`, (B, 3, H, W) for images and (B, T, 3, H, W) for clips, and `geometry`.

        Raises:
            ValueError: Nothing to process, frames that cannot be one batch, or as `load_frame`.
            TypeError: As `load_frame`.
            OSError: As `load_frame`.
        """
        return self.preprocess(images, clips=clips, return_tensors=return_tensors)

    def preprocess(self, images: Any = None, *, clips: Any = None, return_tensors: str = "pt") -> MidwayInputs:
        """The same as calling the processor."""
        if return_tensors != "pt":
            raise ValueError(f"return_tensors must be 'pt' (torch tensors), got {return_tensors!r}")
        if (images is None) == (clips is None):
            raise ValueError(f"pass either images or clips, got {'neither' if images is None else 'both'}")
        if images is not None:
            name, load = "images", load_clips if nesting(images, "images") > 1 else load_frames
            items = load(images, name=name)
        else:
            name, items = "clips", load_clips(clips, name="clips")
        geometry = self._geometry([(int(item.shape[-2]), int(item.shape[-1])) for item in items], name)
        check_lengths(items, name)
        fitted = [
            to_model(item, placement, geometry.model_size, self.resample)
            for item, placement in zip(items, geometry.placements, strict=True)
        ]
        return MidwayInputs({"pixel_values": self._normalise(stack(fitted, name))}, geometry=geometry)

    def undo(
        self, dense: Tensor, geometry: Geometry, *, mode: str = "bilinear", fill: float = math.nan
    ) -> Tensor | list[Tensor]:
        """Brings dense outputs back to the size that each image or clip came in.

        Outputs on a coarser grid than the pixels are first interpolated to the model input. Padding is cut off and
        resizing undone (antialiased where that shrinks). Where nothing has to be interpolated, values are untouched.

        Args:
            dense: (B, ..., h, w), for example (B, C, h, w), (B, T, C, h, w) or labels (B, h, w). (h, w) is the size of
                the model input or a whole fraction of it, such as the token grid.
            geometry: `inputs.geometry` of the batch it was computed from.
            mode: "bilinear" or "bicubic" for floats, "nearest" for any type, such as labels.
            fill: Value for pixels that fit="crop" cut away. Whole numbers have no NaN and must name one, such as 255.

        Returns:
            (B, ..., H, W) at the frames' own size; a list of (..., H, W) where the frames of the batch differ in size.

        Raises:
            ValueError: Another batch, a size that is no whole fraction of the model input, an unknown mode, or a mode
                or fill that the type of `dense` does not allow.
            TypeError: `dense` is no tensor, or `geometry` no Geometry.
        """
        check_dense(dense, geometry, mode, fill)
        first = geometry.placements[0]
        if all(placement == first for placement in geometry.placements):
            return from_model(dense, first, geometry.model_size, mode, fill)
        return [
            from_model(item, placement, geometry.model_size, mode, fill)
            for item, placement in zip(dense, geometry.placements, strict=True)
        ]

    def undo_flow(self, flow: Tensor, geometry: Geometry, *, fill: float = math.nan) -> Tensor | list[Tensor]:
        """Brings optical flow back to the frames' own size, its vectors rescaled to the frames' own pixels.

        Args:
            flow: (B, ..., 2, h, w), x right and y down, in pixels of the model input.
            geometry: As in `undo`.
            fill: As in `undo`.

        Returns:
            As `undo`, in pixels of the frames.

        Raises:
            ValueError: Not two channels; and as `undo`.
            TypeError: As `undo`.
        """
        check_dense(flow, geometry, "bilinear", fill)
        if flow.ndim < 4 or flow.shape[-3] != 2:
            raise ValueError(f"flow must have shape (B, ..., 2, h, w), got {tuple(flow.shape)}")
        scales = [(p.source[1] / p.resized[1], p.source[0] / p.resized[0]) for p in geometry.placements]
        scale = torch.tensor(scales, dtype=torch.promote_types(flow.dtype, torch.float32), device=flow.device)
        scaled = flow * scale.view(len(scales), *[1] * (flow.ndim - 4), 2, 1, 1)
        return self.undo(scaled.to(flow.dtype), geometry, fill=fill)

    def describe(self, size: Sequence[int] | None = None) -> str:
        """Says in plain English what happens to a frame.

        Args:
            size: (height, width) of the frame; without, the description is general.

        Returns:
            A few sentences.

        Raises:
            ValueError: Not a size, or one that this processor refuses.
        """
        sentences = [fit_in_words(self.fit, self.size, self.multiple, self.resample)]
        if size is not None:
            sentences.append(placement_in_words(*place(pair("size", size), self.fit, self._target(), self.multiple)))
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (self.image_mean, self.image_std))
        sentences.append(f"Pixels in [0, 1] minus ({mean}), divided by ({std}), per RGB channel, are the model input.")
        return " ".join(sentences)

    def _geometry(self, sizes: list[Size], name: str) -> Geometry:
        placed = [place(size, self.fit, self._target(), self.multiple) for size in sizes]
        model_sizes = Counter(model_size for _, model_size in placed)
        if len(model_sizes) > 1:
            seen = ", ".join(f"{by(size)} ({count} of them)" for size, count in Counter(sizes).items())
            largest = (max(size[0] for size in model_sizes), max(size[1] for size in model_sizes))
            raise ValueError(
                f"{name} of different sizes cannot be one batch: {seen}. Take fit='contain', 'resize' or 'crop' with "
                f"one size=(height, width); or fit='pad' with size={largest}, which pads all of them to the largest; "
                f"or process them one by one"
            )
        return Geometry(tuple(placement for placement, _ in placed), placed[0][1])

    def _target(self) -> Size | None:
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def _normalise(self, frames: Tensor) -> Tensor:
        mean, std = (frames.new_tensor(values).view(3, 1, 1) for values in (self.image_mean, self.image_std))
        return (frames - mean).div_(std)


def register_image_processor(auto_class: Any, config_class: type) -> None:
    """Tells transformers that models of `config_class` go with `MidwayImageProcessor`.

    It serves as both of the backends that transformers chooses between, since it needs neither.

    Args:
        auto_class: transformers' AutoImageProcessor.
        config_class: The configuration class of the model.
    """
    both = {"torchvision": MidwayImageProcessor, "pil": MidwayImageProcessor}
    try:
        auto_class.register(config_class, image_processor_classes=both, exist_ok=True)
    except TypeError:  # early transformers 5 has slow and fast processors, and fast ones must be torchvision's
        auto_class.register(config_class, slow_image_processor_class=MidwayImageProcessor, exist_ok=True)


__all__ = ["MidwayImageProcessor", "MidwayInputs", "register_image_processor"]
