"""The state of tracking between two frames."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from midway_hub._tensors import need_finite
from midway_hub.analysis import track_rules as rules
from midway_hub.analysis.perturbation import perturbation_heatmaps
from midway_hub.analysis.track_options import Method, TrackOptions
from midway_hub.analysis.track_places import PatchPlaces
from midway_hub.analysis.tracks import TrackedFrame
from midway_hub.models.network import MidwayNetwork


class EncodedFrame:
    """A frame that is encoded once per network, however many pairs and features are asked of it.

    Args:
        net: The network.
        pixels: (1, 3, H, W), normalised.
        method: What is going to be asked of it: `"similarity"` needs no dynamics.

    Attributes:
        features: (N, D) of unit length: the teacher's last block, on the CPU.

    Raises:
        ValueError: The features are not finite.
    """

    def __init__(self, net: MidwayNetwork, pixels: Tensor, method: Method) -> None:
        self._net, self._pixels = net, pixels
        with torch.no_grad():
            if method == "dynamics":
                self.as_target = net.dynamics_tokens(pixels, "teacher")
                last = self.as_target[net.config.depth - 1][0, 1:]
            else:
                last = net.encode(pixels, output_format="tokens").last[0, 1:]
        need_finite(last, "a frame's feature map")
        self.features = F.normalize(last.float().cpu(), dim=1)

    @cached_property
    def as_source(self) -> dict[int, Tensor]:
        if self._net.config.target_network == "shared":
            return self.as_target
        return self._net.dynamics_tokens(self._pixels, "student")


class Tracker:
    """Points on their way through a video.

    Args:
        net: The network.
        first: The first frame.
        places: Where its pixels lie on the patch grid.
        points: (P, 2) in pixels of it.
        options: How to track.
    """

    def __init__(
        self, net: MidwayNetwork, first: EncodedFrame, places: PatchPlaces, points: np.ndarray, options: TrackOptions
    ) -> None:
        self.net, self.options, self.places = net, options, places
        self.at = places.of_points(points)
        self.number, self.before = 0, first
        self.confidence = torch.ones(len(points))
        self.lost = torch.zeros(len(points), dtype=torch.bool)
        self.last_seen = torch.zeros(len(points), dtype=torch.long)
        self.remembered: dict[int, Tensor] = {}  # features of the frames that lost points were last seen in

    def report(self) -> TrackedFrame:
        """Return where the points are now."""
        return TrackedFrame(
            number=self.number,
            positions=self.places.to_points(self.at),
            confidence=self.confidence.numpy().copy(),
            lost=self.lost.numpy().copy(),
        )

    @torch.no_grad()
    def step(self, frame: EncodedFrame, places: PatchPlaces) -> None:
        """Go on to the next frame.

        Raises:
            ValueError: It is of another size.
        """
        if places != self.places:
            (height, width), (was_height, was_width) = places.size, self.places.size
            raise ValueError(
                f"frame {self.number + 1} is {height}×{width} pixels (height×width), the first {was_height}×"
                f"{was_width}; points are tracked through frames of one size"
            )
        self.number += 1
        followed, lost = self._numbers(~self.lost), self._numbers(self.lost)
        if len(followed):
            self._follow(frame, followed)
        if self.options.when_lost == "search":
            for seen in self.last_seen[lost].unique().tolist():
                self._search(frame, lost[self.last_seen[lost] == seen], self.remembered[seen])
        still = self.last_seen[self.lost].tolist()
        self.remembered = {number: self.remembered[number] for number in still}
        self.before = frame

    def _follow(self, frame: EncodedFrame, points: Tensor) -> None:
        """Move points from the frame before to this one."""
        patches, which = self.places.tokens(self.at[points]).unique(return_inverse=True)
        similarity = self.before.features[patches] @ frame.features.T
        heatmaps = self._heatmaps(frame, patches) if self.options.method == "dynamics" else None
        went = rules.choose(similarity, heatmaps, top=self.options.top)
        confidence = self._confidence(similarity, patches, went, self.before.features, frame.features)
        moved = self.places.centres(went) - self.places.centres(patches)
        if self.options.refine:
            here = self.before.features[patches] @ self.before.features.T
            moved += rules.sub_patch_shift(here, similarity, patches, went, self.places.grid)
        taken = (confidence >= self.options.lost_below)[which]
        if self.options.when_lost == "ignore":
            taken[:] = True
        self._put(points[taken], moved[which][taken], confidence[which][taken])
        gone = points[~taken]
        self.lost[gone], self.confidence[gone] = True, 0
        self.remembered[self.number - 1] = self.before.features

    def _search(self, frame: EncodedFrame, points: Tensor, seen: Tensor) -> None:
        """Look in the whole frame for points that were last seen in a frame of the features `seen`."""
        patches = self.places.tokens(self.at[points])
        similarity = seen[patches] @ frame.features.T
        went = rules.choose(similarity)
        confidence = self._confidence(similarity, patches, went, seen, frame.features)
        moved = self.places.centres(went) - self.places.centres(patches)
        found = confidence >= self.options.found_above
        self._put(points[found], moved[found], confidence[found])

    def _put(self, points: Tensor, moved: Tensor, confidence: Tensor) -> None:
        self.at[points] = self.places.within(self.at[points] + moved)
        self.confidence[points], self.last_seen[points], self.lost[points] = confidence, self.number, False

    def _confidence(self, similarity: Tensor, patches: Tensor, went: Tensor, source: Tensor, target: Tensor) -> Tensor:
        alike = similarity.gather(1, went[:, None]).squeeze(1).clamp(0, 1)
        return alike * rules.agreement(source, target[went], patches, self.places.grid)

    @staticmethod
    def _numbers(mask: Tensor) -> Tensor:
        return mask.nonzero().squeeze(1)

    def _heatmaps(self, frame: EncodedFrame, patches: Tensor) -> Tensor:
        motion = self.net.dynamics(self.before.as_source, frame.as_target, self.places.grid)
        options, seed = self.options, self.options.seed + self.number - 1
        maps = perturbation_heatmaps(
            self.net, motion, patches.tolist(), level=options.level, draws=options.draws, seed=seed, chunk=options.chunk
        )
        return maps.flatten(1).float().cpu()
