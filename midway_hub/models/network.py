"""`MidwayNetwork`: encoder and dynamics behind one interface (paper Figure 2), on transformers' `PreTrainedModel`."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from midway_hub import registry
from midway_hub.config import MidwayConfig
from midway_hub.heads import FlowHeadConfig, PairDecoderConfig, SegmentationHeadConfig
from midway_hub.models._checks import check_frames, check_pair, check_weights, normalise_layers
from midway_hub.models.correlation.estimation import CorrelationFlow, checked_updates
from midway_hub.models.correlation.head import CorrelationHead, FlowSequence
from midway_hub.models.dynamics import Dynamics
from midway_hub.models.encoder import MidwayEncoder
from midway_hub.models.flow import FlowHead, Tile, check_overlap, estimate_flow, flow_head_inputs, flow_window
from midway_hub.models.occlusion import occluded
from midway_hub.models.pair_decoder import PairDecoder
from midway_hub.models.pretrained import MidwayPreTrainedModel
from midway_hub.models.segmentation import SegmentationHead, segment_frames
from midway_hub.outputs import ClipOutput, Features, FlowOutput, Motion, SegmentationOutput

Network = Literal["student", "teacher"]
OutputFormat = Literal["grid", "tokens"]


class MissingHeadError(RuntimeError):
    """A head was called that this checkpoint does not have."""


class MidwayNetwork(MidwayPreTrainedModel):
    """One network that knows what is in a frame and how it moves to the next.

    `student` encodes source frames, `teacher` (its moving average) target frames and plain features. With
    `config.target_network == "shared"` one encoder, stored as `student`, does both.

    Args:
        config: The architecture.

    Example:
        >>> net = MidwayNetwork.from_pretrained("midway_pico")
        >>> frames = torch.randn(2, 3, 224, 224)
        >>> net.encode(frames).last.shape
        torch.Size([2, 64, 28, 28])
    """

    def __init__(self, config: MidwayConfig) -> None:
        super().__init__(config)
        self.student = MidwayEncoder(config, drop_path_rate=config.drop_path_rate)
        if config.target_network == "ema":
            self.teacher = MidwayEncoder(config)
        if config.dynamics:
            self.dynamics = Dynamics(config)
        if config.pair_decoder is not None:
            self.pair_decoder = PairDecoder(PairDecoderConfig.of(config.pair_decoder), config)
        if config.flow_head is not None:
            head = FlowHeadConfig.of(config.flow_head)
            self.flow_head: FlowHead | CorrelationHead = (
                CorrelationHead(head, config) if head.kind == "correlation" else FlowHead(head, config)
            )
        if config.segmentation_head is not None:
            self.segmentation_head = SegmentationHead(SegmentationHeadConfig.of(config.segmentation_head), config)
        self.post_init()
        self.copy_source_to_target()
        self.freeze_ema()

    # -- what it computes ------------------------------------------------------------------------------------------

    def encode(
        self,
        images: Tensor,
        *,
        layers: Sequence[int] | None = None,
        output_format: OutputFormat = "grid",
        network: Network = "teacher",
    ) -> Features:
        """Encode frames.

        Args:
            images: (B, 3, H, W) or clips (B, T, 3, H, W), normalised; H and W multiples of the patch size.
            layers: Blocks to return as well, from 0; negatives count from the last.
            output_format: `"grid"` for (B[,T], D, h, w), `"tokens"` for (B[,T], 1+N, D) with CLS first.
            network: `"teacher"` (plain features) or `"student"`.

        Returns:
            Features of the last block and of `layers`, each through the final norm.

        Raises:
            TypeError: `images` is not a tensor.
            ValueError: `images` has the wrong axes, channels, dtype, size or values; a layer does not exist; a name
                is unknown.
        """
        images = self._checked(images, "images", axes=(4, 5))
        wanted = normalise_layers(layers, self.config.depth)
        if output_format not in ("grid", "tokens"):
            raise ValueError(f"output_format must be 'grid' or 'tokens', got {output_format!r}")
        encoder = self.encoder(network)
        tokens = encoder.tokens(images.flatten(0, -4), (self.config.depth - 1, *wanted))
        return self._features(tokens, images, output_format)

    def infer_motion(self, source: Tensor, target: Tensor) -> Motion:
        """Infer the motion from source to target and predict the target's features from the source's.

        Args:
            source: (B, 3, H, W), normalised.
            target: (B, 3, H, W), normalised.

        Returns:
            Motion latents, backward features and predictions, level by level.

        Raises:
            ValueError: A frame is unfit, the two differ in shape, or the checkpoint has no dynamics.
        """
        dynamics = self._require_dynamics()
        source = self._checked(source, "source", axes=(4,))
        target = self._checked(target, "target", axes=(4,))
        check_pair(source, target)
        return dynamics(self._tapped(source, "student"), self._tapped(target, "teacher"), self._grid(source))

    def dynamics_tokens(self, frames: Tensor, network: Network) -> dict[int, Tensor]:
        """Encode frames as the dynamics read them, so that a frame of several pairs is encoded once.

        Of the student's tokens of a source frame and the teacher's of a target frame, `net.dynamics(source, target,
        grid)` makes what `infer_motion` returns.

        Args:
            frames: (B, 3, H, W), normalised.
            network: `"student"` for source frames, `"teacher"` for target frames.

        Returns:
            Tokens (B, 1+N, D), CLS first, by encoder block: those of every level, and the last.

        Raises:
            ValueError: The frames are unfit, or the checkpoint has no dynamics.
        """
        self._require_dynamics()
        return self._tapped(self._checked(frames, "frames", axes=(4,)), network)

    def predict(self, source: Tensor, motion: Motion) -> tuple[Tensor, ...]:
        """Apply motion that was inferred elsewhere to another source frame.

        Args:
            source: (B, 3, H, W), normalised, of the size that the motion was inferred at.
            motion: From `infer_motion`, for B pairs, or for one pair that is then used for every source.

        Returns:
            Predicted features, one (B, 1+N, D) per level, coarse to fine.

        Raises:
            ValueError: The frame is unfit, or does not go with the motion.
        """
        dynamics = self._require_dynamics()
        source = self._checked(source, "source", axes=(4,))
        return dynamics.predict(self._tapped(source, "student"), self._latents_for(source, motion))

    def forward(self, pixel_values: Tensor) -> ClipOutput:
        """Encode images, or encode clips and infer the motion of their consecutive frames.

        Every frame is encoded once per network.

        Args:
            pixel_values: Images (B, 3, H, W) or clips (B, T, 3, H, W), T at least 2; normalised, H and W multiples of
                the patch size.

        Returns:
            Teacher features of all frames, (B[,T], ...); of clips the motion of consecutive pairs too, (B, T-1, ...).

        Raises:
            ValueError: A clip of one frame, unfit frames, or clips for a checkpoint without dynamics.
        """
        frames = self._checked(pixel_values, "pixel_values", axes=(4, 5))
        if frames.ndim == 4:
            last = self.config.depth - 1
            (tokens,) = self.encoder("teacher").tokens(frames, (last,))
            return self._output(tokens, frames)
        return self._clip_output(frames)

    def get_intermediate_layers(
        self,
        images: Tensor,
        n: int | Sequence[int] = 1,
        *,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
    ) -> tuple[Tensor, ...] | tuple[tuple[Tensor, Tensor], ...]:
        """Return patch features of encoder blocks with the call that DINOv2 and timm have; `encode` is ours.

        Args:
            images: (B, 3, H, W), normalised; H and W multiples of the patch size.
            n: The last `n` blocks, or block indices; negatives count from the last.
            reshape: As a grid (B, D, h, w) instead of tokens (B, N, D).
            return_class_token: Pairs of patch features and CLS token (B, D).
            norm: There for callers that pass it: features come through the final norm, as the dynamics read them.

        Returns:
            One entry per block, early to late for a number, in the order asked for a sequence.

        Raises:
            ValueError: Unfit images, blocks that do not exist, or `norm=False`.
        """
        if not norm:
            raise ValueError(
                "norm=False is not to be had: features of all blocks come through the encoder's final norm"
            )
        depth = self.config.depth
        if isinstance(n, int) and not 1 <= n <= depth:
            raise ValueError(f"n must be between 1 and {depth}, the encoder's blocks, got {n}")
        layers = range(depth - n, depth) if isinstance(n, int) else n
        features = self.encode(self._checked(images, "images", axes=(4,)), layers=layers, output_format="tokens")
        patches = [tokens[:, 1:] for tokens in features.layers]
        if reshape:
            patches = [tokens.transpose(1, 2).unflatten(2, features.grid) for tokens in patches]
        if return_class_token:
            return tuple((found, tokens[:, 0]) for found, tokens in zip(patches, features.layers, strict=True))
        return tuple(patches)

    def flow(
        self,
        source: Tensor,
        target: Tensor,
        *,
        tile: Tile = "default",
        overlap: float | None = None,
        updates: int | None = None,
        both: bool = False,
        initial: Tensor | None = None,
    ) -> FlowOutput:
        """Estimate optical flow from source to target; needs a checkpoint with a flow head.

        Args:
            source: (B, 3, H, W), normalised; any H and W.
            target: (B, 3, H, W), normalised.
            tile: Height and width in pixels of the windows that flow is estimated in, `"training"` for those of the
                head's training crop, or None for the whole frame at once; default: as the head's configuration says,
                which is whole frames for all but the smallest networks.
            overlap: Share of a window that the next one covers again, at least 0 and below 1; default with `tile`: 0.5.
            updates: Updates of a correlation head; default: as its configuration says.
            both: Estimate the flow back as well, and tell by both what is occluded.
            initial: (B, 2, H, W) in pixels, flow that a correlation head starts from; default: as it was trained.

        Returns:
            Flow and uncertainty at the frames' own size; with `both` also `backward`, `occluded` and
            `backward_occluded`.

        Raises:
            MissingHeadError: This checkpoint has no flow head; the message names those that have one.
            ValueError: A frame is unfit, the two differ in shape, an option makes no sense or is one of the other kind
                of head, or the flow is not finite.
        """
        source, target = self._checked_pair(source, target)
        self.check_flow_options(tile=tile, overlap=overlap, updates=updates, initial=initial)
        if isinstance(self.flow_head, CorrelationHead):
            return self._correlation().of_pair(source, target, updates=updates, both=both, initial=initial)
        forward = self._flow_by(self.predict_flow, source, target, tile, overlap)
        return self._with_backward(forward, source, target, tile, overlap) if both else forward

    @torch.no_grad()
    def flow_of_clip(
        self,
        frames: Iterable[Tensor],
        *,
        tile: Tile = "default",
        overlap: float | None = None,
        updates: int | None = None,
        both: bool = False,
        warm_start: bool = True,
    ) -> Iterator[FlowOutput]:
        """Estimate the flow between frames that follow each other, as they come; no network encodes a frame twice.

        Where the target network is shared, what a frame was encoded to as the target of a pair serves it as the source
        of the next. What is kept is that of one frame, however long the clip. Nothing here has gradients.

        Args:
            frames: (B, 3, H, W) each, normalised; any H and W, the same for all.
            tile: As for `flow`.
            overlap: As for `flow`.
            updates: As for `flow`.
            both: As for `flow`.
            warm_start: Start a correlation head's updates from the flow before, carried on, rather than anew.

        Yields:
            What `flow` returns for the first frame and the second, the second and the third, and so on.

        Raises:
            MissingHeadError: As `flow`.
            ValueError: As `flow`.
        """
        self.check_flow_options(tile=tile, overlap=overlap, updates=updates)
        if isinstance(self.flow_head, CorrelationHead):
            alike = self._alike(frames)
            yield from self._correlation().of_clip(alike, updates=updates, both=both, warm_start=warm_start)
            return
        if self.flow_reads_decoder:
            for pair in pairwise(frames):
                yield self.flow(*pair, tile=tile, overlap=overlap, both=both)
            return
        encoded: deque[dict[int, Tensor]] = deque()
        shared, follows = self.config.target_network == "shared", False

        def predict(source: Tensor, target: Tensor) -> Tensor:
            # Every pair comes in the same windows: those of the last target lie in front, those of this one go behind.
            tokens = encoded.popleft() if follows else self._tapped(source, "student")
            seen = self._tapped(target, "teacher")
            if shared:
                encoded.append(seen)
            return self.flow_of_tokens(tokens, seen, self._grid(source))[0]

        for pair in pairwise(frames):
            source, target = self._checked_pair(*pair)
            output = self._flow_by(predict, source, target, tile, overlap)
            yield self._with_backward(output, source, target, tile, overlap) if both else output
            follows = shared

    def predict_flow(self, source: Tensor, target: Tensor) -> Tensor:
        """Run dynamics and flow head on whole frames, as finetuning does.

        Args:
            source: (B, 3, H, W), normalised; H and W multiples of the patch size.
            target: (B, 3, H, W), normalised.

        Returns:
            (B, 3, H, W): flow in pixels, x then y, and the raw scale s of the Laplacian (CroCo v2).
        """
        if isinstance(self.flow_head, CorrelationHead):
            return self.flow_sequence(source, target)[0].fine[-1]
        return self.predict_flow_and_motion(source, target)[0]

    def flow_sequence(
        self, source: Tensor, target: Tensor, *, updates: int | None = None, initial: Tensor | None = None
    ) -> tuple[FlowSequence, Motion | None, Mapping[int, Tensor]]:
        """Run dynamics and correlation head on whole frames, as finetuning does.

        Args:
            source: (B, 3, H, W), normalised; H and W multiples of 8.
            target: (B, 3, H, W), normalised.
            updates: As for `flow`.
            initial: As for `flow`.

        Returns:
            Every estimate on the way; the motion that was read, None where the head does without; and the target
            frame's tokens, at the size that the encoder saw.
        """
        flow = self._correlation()
        seen = flow.see(target, "teacher")
        sequence, motion = flow.between(flow.see(source, "student"), seen, updates, initial)
        return sequence, motion, seen.tokens

    def pair_features(self, source: Tensor, target: Tensor) -> list[Tensor]:
        """Return what flow is read off a network that completes frames (CroCo v2, section 4).

        Args:
            source: (B, 3, H, W), normalised; H and W multiples of the patch size.
            target: (B, 3, H, W), normalised.

        Returns:
            Four maps (B, D, h, w): the source's of the last encoder block, then of three decoder blocks.

        Raises:
            ValueError: This checkpoint has no decoder.
        """
        if self.config.pair_decoder is None:
            raise ValueError("this checkpoint has no decoder of one frame given another; croco trains one")
        grid, last = self._grid(source), (self.config.depth - 1,)
        (seen,), (other,) = self.encoder("student").tokens(source, last), self.encoder("teacher").tokens(target, last)
        decoded = self.pair_decoder(seen[:, 1:], other[:, 1:], None, grid)
        tokens = (seen[:, 1:], *(decoded[hook] for hook in self.pair_decoder.hooks()))
        return [each.transpose(1, 2).unflatten(2, grid) for each in tokens]

    @property
    def flow_reads_decoder(self) -> bool:
        """Whether the flow head reads the decoder, and not the dynamics."""
        return isinstance(self.flow_head, FlowHead) and self.flow_head.config.reads == "decoder"

    def predict_flow_and_motion(
        self, source: Tensor, target: Tensor
    ) -> tuple[Tensor, Motion | None, dict[int, Tensor]]:
        """Run `predict_flow`, and return what it was read off too.

        Returns:
            The estimate; the motion; and the target frame's tokens, as from `dynamics_tokens(target, "teacher")`. Of a
            head that reads a decoder, the estimate alone.
        """
        if self.flow_reads_decoder:
            assert isinstance(self.flow_head, FlowHead)
            return self.flow_head.read(self.pair_features(source, target)), None, {}
        self._require_dynamics()
        seen = self._tapped(target, "teacher")
        estimate, motion = self.flow_of_tokens(self._tapped(source, "student"), seen, self._grid(source))
        return estimate, motion, seen

    def flow_of_tokens(
        self, source: Mapping[int, Tensor], target: Mapping[int, Tensor], grid: tuple[int, int]
    ) -> tuple[Tensor, Motion]:
        """Run dynamics and flow head on frames that are encoded already.

        Args:
            source: Tokens of the source frames, as from `dynamics_tokens(frames, "student")`.
            target: Tokens of the target frames, as from `dynamics_tokens(frames, "teacher")`.
            grid: Patch grid (h, w).

        Returns:
            The estimate, as from `predict_flow`, and the motion that it was read off.
        """
        dynamics = self._require_dynamics()
        if isinstance(self.flow_head, CorrelationHead):
            raise ValueError("a correlation head reads frames beside their tokens; call flow() or flow_sequence()")
        motion = dynamics(source, target, grid)
        inputs = flow_head_inputs(source[self.config.depth - 1], motion, dynamics.motion_proj)
        return self.flow_head(inputs, motion.grid), motion

    def segment(
        self, images: Tensor, *, slide: tuple[int, int] | Literal["default"] | None = "default"
    ) -> SegmentationOutput:
        """Segment frames into classes; needs a checkpoint with a segmentation head.

        Args:
            images: (B, 3, H, W), normalised; any H and W.
            slide: Side of the window and step between windows in pixels; None: the whole frame at once; default: as
                the head's configuration says.

        Returns:
            Logits and labels at the frames' own size, and the classes' names and palette.

        Raises:
            MissingHeadError: This checkpoint has no segmentation head; the message names those that have one.
            ValueError: A frame is unfit, `slide` makes no sense, or the logits are not finite.
        """
        self.require_segmentation_head()
        images = self._checked(images, "images", axes=(4,), any_size=True)
        head = self.segmentation_head.config
        return segment_frames(
            self.predict_classes, head, self.config, images, head.slide if slide == "default" else slide
        )

    def predict_classes(self, images: Tensor) -> Tensor:
        """Run encoder and segmentation head on whole frames, as training does.

        Args:
            images: (B, 3, H, W), normalised; H and W multiples of the patch size.

        Returns:
            Logits (B, K, h', w') at the head's own resolution.
        """
        return self.segmentation_head(self.segmentation_features(images))

    def segmentation_features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return what the segmentation head reads of frames: grids (B, D, h, w), one per layer of its configuration.

        Encoder blocks come through the final norm. Backward features are those of the target's side, top down, as the
        teacher makes them.
        """
        head = self.segmentation_head.config
        if head.features == "encoder":
            return self.encode(images, layers=head.layers).layers
        images = self._checked(images, "images", axes=(4,))
        found = self._require_dynamics().backward_features(self._tapped(images, "teacher"))
        levels = [self.config.levels[-1] if level == -1 else level for level in head.layers]
        return tuple(found[level][:, 1:].transpose(1, 2).unflatten(2, self._grid(images)) for level in levels)

    @property
    def num_features(self) -> int:
        """Width D of the encoder's features, under the name that timm gives it."""
        return self.config.embed_dim

    @property
    def has_flow_head(self) -> bool:
        """Whether `flow` works on this checkpoint."""
        return hasattr(self, "flow_head")

    def check_flow_options(
        self,
        *,
        tile: Tile = "default",
        overlap: float | None = None,
        updates: int | None = None,
        initial: Tensor | None = None,
    ) -> None:
        """Refuse options of `flow` that make no sense or are of the other kind of head, before any frame is read.

        Raises:
            MissingHeadError: As `flow`.
            ValueError: As `flow`.
        """
        self.require_flow_head()
        check_overlap(flow_window(tile, self.flow_head.config, self.config.patch_size), overlap)
        if updates is not None and isinstance(self.flow_head, CorrelationHead):
            checked_updates(updates)
        elif isinstance(self.flow_head, FlowHead) and (updates is not None or initial is not None):
            raise ValueError(
                "updates and initial are of correlation heads; this checkpoint's flow head (dpt) estimates flow at once"
            )

    def require_flow_head(self) -> None:
        """Raise the `MissingHeadError` that `flow` raises, before any frame is read."""
        if not self.has_flow_head:
            raise self._missing_head("flow")

    def require_segmentation_head(self) -> None:
        """Raise the `MissingHeadError` that `segment` raises, before any frame is read."""
        if not self.has_segmentation_head:
            raise self._missing_head("segmentation")

    @property
    def has_segmentation_head(self) -> bool:
        """Whether `segment` works on this checkpoint."""
        return hasattr(self, "segmentation_head")

    # -- its networks ----------------------------------------------------------------------------------------------

    def encoder(self, network: Network = "teacher") -> MidwayEncoder:
        """Return the student or the teacher encoder: the same one when the target network is shared."""
        if network not in ("student", "teacher"):
            raise ValueError(f"network must be 'student' or 'teacher', got {network!r}")
        return self.student if self.config.target_network == "shared" else getattr(self, network)

    @torch.no_grad()
    def copy_source_to_target(self) -> None:
        """Set the target's side (teacher, target embed, backward layers) to what it follows, as training starts."""
        for copied, origin in self.target_side().items():
            copied.load_state_dict(origin.state_dict())

    def target_side(self) -> dict[nn.Module, nn.Module]:
        """Map every module of the target's side to the source's module that it follows."""
        copies: dict[nn.Module, nn.Module] = self.dynamics.target_side() if self.config.dynamics else {}
        if self.config.target_network == "ema":
            copies[self.teacher] = self.student
        return copies

    def freeze_ema(self) -> None:
        """Take moving averages out of training; where the target network is shared, everything trains."""
        for copied in self.target_side():
            copied.requires_grad_(self.config.target_network == "shared")

    def with_shared_encoder(self, network: Network = "teacher") -> MidwayNetwork:
        """Return a copy that keeps one encoder for both frames, all of it trainable: the form that finetuning uses.

        Args:
            network: Which encoder to keep.
        """
        config = copy.deepcopy(self.config)
        config.target_network = "shared"
        shared = MidwayNetwork(config).to(device=self.device, dtype=self.dtype)
        state = {key: value for key, value in self.state_dict().items() if not key.startswith(("student.", "teacher."))}
        state.update({f"student.{key}": value for key, value in self.encoder(network).state_dict().items()})
        shared.load_state_dict(state)
        shared.image_processor = self.image_processor
        return shared.train(self.training)

    # -- helpers ---------------------------------------------------------------------------------------------------

    def _weights_loaded(self) -> None:
        self.freeze_ema()

    def _checked(self, frames: Tensor, name: str, *, axes: Sequence[int], any_size: bool = False) -> Tensor:
        weights, config = self.student.cls_token, self.config
        check_weights(weights)
        check_frames(
            frames,
            name=name,
            axes=axes,
            channels=config.num_channels,
            multiple=1 if any_size else config.patch_size,
            device=weights.device,
        )
        return frames.to(weights.dtype)

    def _flow_by(
        self,
        predict: Callable[[Tensor, Tensor], Tensor],
        source: Tensor,
        target: Tensor,
        tile: Tile,
        overlap: float | None,
    ) -> FlowOutput:
        assert isinstance(self.flow_head, FlowHead)
        return estimate_flow(predict, self.flow_head.config, self.config, source, target, tile, overlap)

    def _with_backward(
        self, forward: FlowOutput, source: Tensor, target: Tensor, tile: Tile, overlap: float | None
    ) -> FlowOutput:
        flow, backward = forward.flow, self._flow_by(self.predict_flow, target, source, tile, overlap).flow
        return FlowOutput(flow, forward.uncertainty, backward, occluded(flow, backward), occluded(backward, flow))

    def _checked_pair(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        self.require_flow_head()
        source = self._checked(source, "source", axes=(4,), any_size=True)
        target = self._checked(target, "target", axes=(4,), any_size=True)
        check_pair(source, target)
        return source, target

    def _alike(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """Check frames of a clip as they come; all have the shape of the first."""
        first: Tensor | None = None
        for frame in frames:
            frame = self._checked(frame, "target", axes=(4,), any_size=True)
            check_pair(frame if first is None else first, frame)
            first = frame if first is None else first
            yield frame

    def _correlation(self) -> CorrelationFlow:
        if not isinstance(self.flow_head, CorrelationHead):
            raise ValueError("this checkpoint's flow head is of kind 'dpt', wanted 'correlation'")
        return CorrelationFlow(self, self._tapped)

    def _grid(self, frames: Tensor) -> tuple[int, int]:
        return frames.shape[-2] // self.config.patch_size, frames.shape[-1] // self.config.patch_size

    def _tapped(self, images: Tensor, network: Network) -> dict[int, Tensor]:
        """Tokens (B, 1+N, D) of the blocks that the dynamics read; no gradient reaches an EMA teacher."""
        blocks = (*self.config.levels, self.config.depth - 1)
        with torch.set_grad_enabled(
            torch.is_grad_enabled() and not (network == "teacher" and self.config.target_network == "ema")
        ):
            return dict(zip(blocks, self.encoder(network).tokens(images, blocks), strict=True))

    def _clip_output(self, clips: Tensor) -> ClipOutput:
        dynamics = self._require_dynamics()
        batch, frames = clips.shape[:2]
        if frames < 2:
            raise ValueError(
                f"pixel_values holds clips of {frames} frame; motion needs at least 2. Images have shape (B, 3, H, W)"
            )
        teacher = self._tapped(clips.flatten(0, 1), "teacher")
        if self.config.target_network == "ema":
            source = self._tapped(clips[:, :-1].flatten(0, 1), "student")
        else:
            source = {block: _drop_frame(tokens, batch, -1) for block, tokens in teacher.items()}
        target = {block: _drop_frame(tokens, batch, 0) for block, tokens in teacher.items()}
        motion = dynamics(source, target, self._grid(clips))
        motion = motion.map(lambda tensor: tensor.unflatten(0, (batch, frames - 1)))
        return self._output(teacher[self.config.depth - 1], clips, motion)

    def _output(self, tokens: Tensor, frames: Tensor, motion: Motion | None = None) -> ClipOutput:
        last = self._features([tokens], frames, "tokens")
        patches = last.last[..., 1:, :].transpose(-1, -2).unflatten(-1, last.grid)
        return ClipOutput(last_hidden_state=last.last, pooler_output=last.cls, feature_map=patches, motion=motion)

    def _features(self, tokens: Sequence[Tensor], images: Tensor, output_format: OutputFormat) -> Features:
        grid, leading = self._grid(images), images.shape[:-3]
        shaped = [t if output_format == "tokens" else t[:, 1:].transpose(1, 2).unflatten(2, grid) for t in tokens]
        shaped = [t.unflatten(0, leading) for t in shaped]
        return Features(last=shaped[0], cls=tokens[0][:, 0].unflatten(0, leading), layers=tuple(shaped[1:]), grid=grid)

    def _latents_for(self, source: Tensor, motion: Motion) -> tuple[Tensor, ...]:
        if not isinstance(motion, Motion):
            raise TypeError(f"motion must come from infer_motion(), got {type(motion).__name__}")
        if motion.target_context.ndim == 4:
            raise ValueError("motion is that of a clip; pick one pair of frames with motion.pair(index)")
        if motion.grid != self._grid(source):
            raise ValueError(f"source has a patch grid of {self._grid(source)}, the motion one of {motion.grid}")
        pairs, batch = motion.latents[0].shape[0], source.shape[0]
        if pairs not in (1, batch):
            raise ValueError(
                f"source holds {batch} frames, the motion {pairs} pairs; wanted as many, or one pair for all"
            )
        return tuple(latents.expand(batch, -1, -1) for latents in motion.latents)

    def _require_dynamics(self) -> Dynamics:
        if not self.config.dynamics:
            have = ", ".join(registry.list_models(task="motion"))
            raise ValueError(f"this checkpoint holds an encoder alone, no dynamics; checkpoints with motion: {have}")
        return self.dynamics

    def _missing_head(self, task: str) -> MissingHeadError:
        have = ", ".join(registry.list_models(task=task)) or "none yet"
        return MissingHeadError(
            f"this checkpoint has no {task} head; checkpoints in the registry that have one: {have}"
        )


def _drop_frame(tokens: Tensor, batch: int, frame: Literal[0, -1]) -> Tensor:
    """Leave the first (0) or the last (-1) frame of every clip out of tokens (B·T, 1+N, D)."""
    clips = tokens.unflatten(0, (batch, -1))
    return (clips[:, 1:] if frame == 0 else clips[:, :-1]).flatten(0, 1)
