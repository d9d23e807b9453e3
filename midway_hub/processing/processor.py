"""`MidwayImageProcessor`: how frames are fitted and normalised, and how that is undone."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, overload

import torch
from torch import Tensor
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature

from midway_hub.outputs import FlowOutput
from midway_hub.processing.checks import (
    check_dense,
    check_lengths,
    choice,
    count,
    looks_like_flow,
    normalisation,
    pair,
    refuse_unknown,
    target_size,
)
from midway_hub.processing.describe import fit_in_words, placement_in_words
from midway_hub.processing.frames import load_clips, load_frames, nesting, stack
from midway_hub.processing.geometry import FITS, Geometry, Size, by, from_model, place, to_model
from midway_hub.processing.normalisation import Normalisation
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
        checked = normalisation(image_mean, image_std)
        self.image_mean, self.image_std = checked.mean, checked.std
        self.resample = choice("resample", resample, RESAMPLES)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Make the processor that a checkpoint was saved with; its weights are not fetched for it.

        A checkpoint that says nothing of its frames gets ImageNet's normalisation. `multiple` follows the network's
        patch size where the file names none, or one that is not made of whole patches.

        Args:
            pretrained_model_name_or_path: Registry name, Hub repo `org/repo[@revision]`, directory, `.safetensors` file
                (its processor is the one beside it), or a processor's own `.json` file; an existing path wins.
            cache_dir: Where downloads are kept; default: the Hugging Face cache.
            force_download: Fetch a Hub repo's file anew.
            local_files_only: Never ask the network.
            token: Access token of the Hub; by default the stored one.
            revision: Branch, tag or commit of the Hub repo.
            **kwargs: Settings that override the checkpoint's (`fit`, `size`, ...), and what transformers passes.

        Raises:
            OSError: There is no such path or repository, it cannot be reached, or a file is damaged.
            ValueError: Unknown name (close ones are listed), or a file that says what no processor takes; the message
                names file, key, what was seen and what is wanted.
        """
        from midway_hub.hub.preprocessor import resolve_preprocessor
        from midway_hub.processing.settings import read_processor

        if force_download or kwargs.get("subfolder"):  # transformers' own ways, for repositories and folders
            options: dict[str, Any] = {"force_download": force_download, "local_files_only": local_files_only}
            options |= {"token": token, "revision": revision or "main"}
            return super().from_pretrained(pretrained_model_name_or_path, cache_dir, **options, **kwargs)
        if kwargs.pop("_from_auto", False) and Path(pretrained_model_name_or_path).exists():
            revision = None  # AutoImageProcessor names one for folders too
        found = resolve_preprocessor(
            pretrained_model_name_or_path,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
        )
        otherwise = Normalisation(found.image_mean, found.image_std)
        made = read_processor(found.file, patch_size=found.patch_size, normalisation=otherwise)
        return cls.from_dict(made.to_dict(), **kwargs)

    @property
    def normalisation(self) -> Normalisation:
        """Mean and standard deviation."""
        return Normalisation(self.image_mean, self.image_std)

    def with_short_side(self, size: int | None, *, multiple: int | None = None) -> MidwayImageProcessor:
        """Return a processor that normalises and resamples as this one does, for frames at another size.

        Args:
            size: Their short side in pixels, the aspect ratio kept; None: as they are.
            multiple: As for the class; default: this processor's.

        Raises:
            ValueError: A number is below 1.
        """
        return MidwayImageProcessor(
            fit="pad" if size is None else "shortest",
            size=size,
            multiple=self.multiple if multiple is None else multiple,
            image_mean=self.image_mean,
            image_std=self.image_std,
            resample=self.resample,
        )

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
        return MidwayInputs({"pixel_values": self.normalisation(stack(fitted, name))}, geometry=geometry)

    @overload
    def undo(
        self, dense: FlowOutput, geometry: Geometry, *, mode: str = ..., fill: float = ...
    ) -> FlowOutput | list[FlowOutput]: ...

    @overload
    def undo(
        self, dense: Tensor, geometry: Geometry, *, mode: str = ..., fill: float = ..., vectors: bool | None = ...
    ) -> Tensor | list[Tensor]: ...

    def undo(
        self,
        dense: Tensor | FlowOutput,
        geometry: Geometry,
        *,
        mode: str = "bilinear",
        fill: float = math.nan,
        vectors: bool | None = None,
    ) -> Tensor | FlowOutput | list[Tensor] | list[FlowOutput]:
        """Brings dense outputs back to the size that each image or clip came in.

        Outputs on a coarser grid than the pixels are first interpolated to the model input. Padding is cut off and
        resizing undone (antialiased where that shrinks). Where nothing has to be interpolated, values are untouched.

        What `MidwayNetwork.flow` returns is passed whole: its vectors and their uncertainty then come in the frames'
        own pixels. A bare tensor of two channels that was resized may hold vectors or not: `vectors` has to say so.

        Args:
            dense: (B, ..., h, w), for example (B, C, h, w), (B, T, C, h, w) or labels (B, h, w). (h, w) is the size of
                the model input or a whole fraction of it, such as the token grid. Or a `FlowOutput`.
            geometry: `inputs.geometry` of the batch it was computed from; `inputs.geometry[:1]` is that of its first
                image.
            mode: "bilinear" or "bicubic" for floats, "nearest" for any type, such as labels.
            fill: Value for pixels that fit="crop" cut away. Whole numbers have no NaN and must name one, such as 255.
            vectors: Of a bare tensor, whether its two channels are vectors in pixels (True: as `undo_flow`) or not.

        Returns:
            (B, ..., H, W) at the frames' own size; a list of (..., H, W) where the frames of the batch differ in size.
            Of a `FlowOutput` another one, or a list of one per pair, each with B = 1.

        Raises:
            ValueError: Another batch, a size that is no whole fraction of the model input, an unknown mode, a mode or
                fill that the type of `dense` does not allow, or two channels of which it is not said what they are.
            TypeError: `dense` is no tensor and no `FlowOutput`, or `geometry` no Geometry.
        """
        if isinstance(dense, FlowOutput):
            return self._undo_flow_output(dense, geometry, mode, fill)
        if vectors:
            return self.undo_flow(dense, geometry, mode=mode, fill=fill)
        check_dense(dense, geometry, mode, fill)
        if vectors is None and looks_like_flow(dense, geometry):
            raise ValueError(
                f"undo() got two channels of the size of the input, {by(geometry.model_size)}, of resized frames. "
                "If they are optical flow, their vectors have to be rescaled: pass what net.flow() returned, "
                "whole, or call undo_flow(). If they are something else, say so by vectors=False"
            )
        return self._undo(dense, geometry, mode, fill)

    def undo_flow(
        self, flow: Tensor, geometry: Geometry, *, mode: str = "bilinear", fill: float = math.nan
    ) -> Tensor | list[Tensor]:
        """Brings optical flow back to the frames' own size, its vectors rescaled to the frames' own pixels.

        Args:
            flow: (B, ..., 2, h, w), x right and y down, in pixels of the model input.
            geometry: As in `undo`.
            mode: As in `undo`.
            fill: As in `undo`.

        Returns:
            As `undo`, in pixels of the frames.

        Raises:
            ValueError: Not two channels; and as `undo`.
            TypeError: As `undo`.
        """
        check_dense(flow, geometry, mode, fill)
        if flow.ndim < 4 or flow.shape[-3] != 2:
            raise ValueError(f"flow must have shape (B, ..., 2, h, w), got {tuple(flow.shape)}")
        scale = _pixels_of_the_frame(flow, geometry)
        scaled = flow * scale.view(len(scale), *[1] * (flow.ndim - 4), 2, 1, 1)
        return self._undo(scaled.to(flow.dtype), geometry, mode, fill)

    def _undo_flow_output(
        self, output: FlowOutput, geometry: Geometry, mode: str, fill: float
    ) -> FlowOutput | list[FlowOutput]:
        """Flow in the frames' own pixels, and the logarithm of its scale: plus that of the mean factor of x and y."""
        flow = self.undo_flow(output.flow, geometry, mode=mode, fill=fill)
        longer = _pixels_of_the_frame(output.uncertainty, geometry).log().mean(dim=1)
        uncertainty = self._undo(output.uncertainty + longer.view(-1, 1, 1), geometry, mode, fill)
        if isinstance(flow, Tensor) and isinstance(uncertainty, Tensor):
            return FlowOutput(flow, uncertainty)
        return [FlowOutput(one[None], how[None]) for one, how in zip(flow, uncertainty, strict=True)]

    def _undo(self, dense: Tensor, geometry: Geometry, mode: str, fill: float) -> Tensor | list[Tensor]:
        first = geometry.placements[0]
        if all(placement == first for placement in geometry.placements):
            return from_model(dense, first, geometry.model_size, mode, fill)
        return [
            from_model(item, placement, geometry.model_size, mode, fill)
            for item, placement in zip(dense, geometry.placements, strict=True)
        ]

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


def _pixels_of_the_frame(like: Tensor, geometry: Geometry) -> Tensor:
    """How many of a frame's own pixels, across and down, a pixel of the model input is: (B, 2)."""
    scales = [(p.source[1] / p.resized[1], p.source[0] / p.resized[0]) for p in geometry.placements]
    return torch.tensor(scales, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)


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
