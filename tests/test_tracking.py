import gc
import math
import weakref

import numpy as np
import pytest
import torch
from conftest import make_tiny_net

from midway_hub.analysis import track_rules as rules
from midway_hub.analysis import tracking
from midway_hub.analysis.perturbation import perturbation_heatmaps
from midway_hub.analysis.track_places import grid_points
from midway_hub.analysis.tracking import track_points
from midway_hub.analysis.tracks import Tracks
from midway_hub.models.dynamics import DynamicsLevel
from midway_hub.processing import MidwayImageProcessor

GRID = (3, 4)
SIZE = (48, 64)


class Shifting(DynamicsLevel):
    """A level whose predictor moves every patch by whole patches, and what leaves the frame in again opposite."""

    across: int
    down: int

    def predict(self, motion: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        patches = source[:, 1:].unflatten(1, GRID).roll((self.down, self.across), (1, 2)).flatten(1, 2)
        return torch.cat([source[:, :1], patches], dim=1)


def net_for_shift(shift, **changes):
    """A network that predicts one shift, and whose features do not know where in the frame a patch is."""
    net = make_tiny_net(**changes)
    net.dynamics.levels["2"].__class__ = Shifting
    net.dynamics.levels["2"].across, net.dynamics.levels["2"].down = shift
    with torch.no_grad():
        for encoder in {net.encoder("student"), net.encoder("teacher")}:
            encoder.pos_embed.zero_()
    return net


def noise(seed: int, size=SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def shifting_clip(shift, frames: int) -> list[np.ndarray]:
    """Noise that moves by whole patches of 16 pixels, and comes in again opposite."""
    return [np.roll(noise(0), (16 * shift[1] * t, 16 * shift[0] * t), (0, 1)) for t in range(frames)]


def positions(steps) -> np.ndarray:
    return np.stack([step.positions for step in steps])


# -- what is known is tracked exactly ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dynamics", "similarity"])
@pytest.mark.parametrize(("shift", "start"), [((1, 0), (3, 20)), ((0, -1), (40, 45)), ((1, 1), (10.5, 2.25))])
def test_a_shift_by_whole_patches_is_tracked_exactly(method, shift, start):
    frames = shifting_clip(shift, 3)
    steps = list(track_points(net_for_shift(shift), frames, [start], method=method, size=None, draws=2))
    expected = [[start[0] + 16 * shift[0] * t, start[1] + 16 * shift[1] * t] for t in range(3)]
    np.testing.assert_allclose(positions(steps)[:, 0], expected, rtol=0, atol=1e-4)
    assert [step.number for step in steps] == [0, 1, 2]
    assert not any(step.lost.any() for step in steps)
    assert min(step.confidence.min() for step in steps) > 0.999


def test_the_dynamics_decide_where_all_patches_look_alike():
    grey = [np.full((*SIZE, 3), 90, np.uint8)] * 3
    net = net_for_shift((1, 0))
    moved = positions(track_points(net, grey, [(8, 24)], size=None, top=1, when_lost="ignore"))
    assert moved[:, 0, 0].tolist() == [8, 24, 40]


@pytest.mark.parametrize("method", ["dynamics", "similarity"])
@pytest.mark.parametrize("refine", [False, True])
def test_points_of_a_still_video_stay(method, refine):
    frames = [noise(1, (67, 101))] * 3
    points = grid_points((67, 101), 5)
    steps = list(track_points(make_tiny_net(), frames, points, method=method, refine=refine, top=96, size=48))
    np.testing.assert_allclose(positions(steps), np.broadcast_to(points, (3, *points.shape)), atol=1e-4)


@pytest.mark.parametrize("size", [None, 40, 80])
def test_frames_of_any_size_are_tracked_within_their_pixels(size):
    frames = [noise(seed, (67, 101)) for seed in range(3)]
    corners = [(0, 0), (100, 0), (0, 66), (100, 66)]
    moved = positions(track_points(make_tiny_net(), frames, corners, size=size, draws=2, when_lost="ignore"))
    np.testing.assert_allclose(moved[0], corners, atol=1e-4)
    assert moved.min() >= 0
    assert (moved.max(axis=(0, 1)) <= (100, 66)).all()


def test_points_in_pixels_of_a_resized_video_move_by_its_patches():
    frames = [np.asarray(frame).repeat(3, axis=0).repeat(3, axis=1) for frame in shifting_clip((1, 0), 2)]
    steps = list(track_points(net_for_shift((1, 0)), frames, [(10, 70)], method="similarity", size=48))
    np.testing.assert_allclose(steps[1].positions, [[10 + 3 * 16, 70]], atol=1e-4)


# -- streaming -----------------------------------------------------------------------------------------------------


def count_encodings(net) -> dict[str, int]:
    counts = {}
    for name in ("student", "teacher"):
        encoder = net.encoder(name)

        def counted(images, layers, *, name=name, tokens=encoder.tokens):
            counts[name] = counts.get(name, 0) + len(images)
            return tokens(images, layers)

        encoder.tokens = counted
        if net.config.target_network == "shared":
            break
    return counts


@pytest.mark.parametrize(
    ("target_network", "method", "expected"),
    [
        ("ema", "dynamics", {"teacher": 5, "student": 4}),
        ("shared", "dynamics", {"student": 5}),
        ("ema", "similarity", {"teacher": 5}),
    ],
)
def test_each_frame_is_encoded_once_per_network(target_network, method, expected):
    net = make_tiny_net(target_network=target_network)
    counts, ignoring = count_encodings(net), {"size": None, "when_lost": "ignore"}
    list(track_points(net, [noise(seed) for seed in range(5)], [(20, 20)], method=method, draws=1, **ignoring))
    assert counts == expected


def test_streaming_equals_making_every_pair_anew():
    net, frames, points = make_tiny_net(), [noise(seed) for seed in range(4)], [(5, 5), (40, 20), (60, 40)]
    options = {"draws": 3, "seed": 7, "top": 4, "level": 5, "when_lost": "ignore"}
    found = positions(track_points(net, frames, points, size=None, **options))

    pixels = MidwayImageProcessor()(frames)["pixel_values"]
    expected = [np.array(points, dtype=float)]
    for pair in range(3):
        with torch.no_grad():
            motion = net.infer_motion(pixels[pair : pair + 1], pixels[pair + 1 : pair + 2])
            source, target = (net.encode(pixels[t : t + 1]).last[0].flatten(1).T for t in (pair, pair + 1))
        moved = []
        for x, y in expected[-1]:
            token = int(y + 0.5) // 16 * 4 + int(x + 0.5) // 16
            heatmap = perturbation_heatmaps(net, motion, [token], level=5, draws=3, seed=7 + pair).flatten()
            among = heatmap.argsort(descending=True)[:4].tolist()
            best = max(among, key=lambda patch: torch.cosine_similarity(source[token], target[patch], dim=0).item())
            moved.append([x + 16 * (best % 4 - token % 4), y + 16 * (best // 4 - token // 4)])
        expected.append(np.array(moved))
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-4)
    assert (found[1:] != found[:-1]).any()


def test_frames_are_taken_one_by_one():
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield noise(len(taken))

    steps = track_points(make_tiny_net(), endless(), [(20, 20)], method="similarity", size=None)
    assert taken == []
    assert [next(steps).number for _ in range(3)] == [0, 1, 2]
    assert taken == [0, 1, 2]


def test_what_is_held_does_not_grow_with_the_video(monkeypatch):
    alive, tensors = weakref.WeakSet(), {}

    class Watched(tracking.EncodedFrame):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            alive.add(self)

    monkeypatch.setattr(tracking, "EncodedFrame", Watched)
    frames = (noise(seed) for seed in range(40))
    for step in track_points(make_tiny_net(), frames, [(8, 8), (40, 40)], method="similarity", size=None):
        assert len(alive) <= 2
        if step.number in (9, 39):
            tensors[step.number] = sum(type(item) is torch.Tensor for item in gc.get_objects())
    assert tensors[39] <= tensors[9] + 2  # as many lost points as there are remember one frame each


def test_the_same_seed_gives_the_same_tracks_and_another_one_others():
    net, frames = make_tiny_net(), [noise(seed) for seed in range(4)]

    def tracked(seed):
        points = grid_points(SIZE, 4)
        return positions(track_points(net, frames, points, draws=1, seed=seed, size=None, when_lost="ignore"))

    np.testing.assert_array_equal(tracked(3), tracked(3))
    assert (tracked(3) != tracked(4)).any()


# -- how sure, and what is lost ------------------------------------------------------------------------------------


@pytest.fixture
def scripted(monkeypatch):
    """Frames whose features are given: a grid of letters; equal letters look alike, others not at all."""

    class Scripted:
        def __init__(self, net, pixels, method):
            self.features = torch.nn.functional.one_hot(torch.tensor(scenes[len(made)]), 128).float()
            made.append(None)

    scenes, made = [], []
    monkeypatch.setattr(tracking, "EncodedFrame", Scripted)

    def track(texts, points, **options):
        made.clear()
        scenes[:] = [[ord(letter) for letter in text.replace(" ", "")] for text in texts]
        frames = [noise(0)] * len(texts)
        return list(track_points(make_tiny_net(), frames, points, method="similarity", size=None, **options))

    return track


def patch_of(step, point: int = 0) -> tuple[int, int]:
    x, y = step.positions[point]
    return int(x // 16), int(y // 16)


SEEN, GONE, BACK = "abcd efgh ijkl", "abcd e.gh ijkl", "abcd e.gh ijkf"


def test_a_point_that_is_gone_is_lost_and_stays_where_it_was_seen(scripted):
    steps = scripted([SEEN, SEEN, GONE, GONE, GONE], [(20, 20), (40, 20)])
    assert [step.lost.tolist() for step in steps] == [[False, False]] * 2 + [[True, False]] * 3
    assert steps[-1].positions.tolist() == [[20, 20], [40, 20]]
    assert [step.confidence.tolist() for step in steps] == [[1, 1]] * 2 + [[0, 1]] * 3


def test_a_lost_point_is_found_again_wherever_it_comes_back(scripted):
    steps = scripted([SEEN, GONE, GONE, BACK, BACK], [(20, 20)])
    assert [step.lost[0] for step in steps] == [False, True, True, False, False]
    assert [patch_of(step) for step in steps] == [(1, 1), (1, 1), (1, 1), (3, 2), (3, 2)]
    assert steps[3].confidence[0] == 1


def test_a_lost_point_stays_lost_if_that_is_wanted(scripted):
    steps = scripted([SEEN, GONE, BACK, BACK], [(20, 20)], when_lost="stop")
    assert [step.lost[0] for step in steps] == [False, True, True, True]
    assert patch_of(steps[-1]) == (1, 1)


def test_no_point_is_lost_if_that_is_wanted(scripted):
    steps = scripted([SEEN, GONE, GONE], [(20, 20)], when_lost="ignore")
    assert not any(step.lost.any() for step in steps)
    assert steps[1].confidence[0] == 0


def test_points_lost_in_different_frames_are_searched_as_they_last_looked(scripted):
    steps = scripted(
        ["ab.. .... ....", "a..b .... ....", "...b .... ....", ".... .... ....", ".... .... .ba."], [(8, 8), (24, 8)]
    )
    assert [step.lost.tolist() for step in steps] == [
        [False, False],
        [False, False],
        [True, False],
        [True, True],
        [False, False],
    ]
    assert [patch_of(steps[-1], point) for point in (0, 1)] == [(2, 2), (1, 2)]


def test_the_confidence_falls_with_the_distance_of_the_way_back(scripted):
    # Two patches look alike: the first is taken, and the way back leads to the first of the frame before.
    steps = scripted(["aa.. .... ....", "aa.. .... ...."], [(24, 8)], when_lost="ignore")
    assert steps[1].confidence[0] == pytest.approx(math.exp(-1))
    steps = scripted(["a... .... .a..", "a... .... .a.."], [(24, 40)], when_lost="ignore")
    assert steps[1].confidence[0] == pytest.approx(math.exp(-math.hypot(1, 2)))


def test_the_threshold_decides_what_is_lost(scripted):
    pair = ["aa.. .... ....", "aa.. .... ...."]
    assert not scripted(pair, [(24, 8)], lost_below=0.36)[1].lost[0]
    assert scripted(pair, [(24, 8)], lost_below=0.37)[1].lost[0]


# -- rules ---------------------------------------------------------------------------------------------------------


def test_the_most_similar_of_the_highest_places_is_chosen():
    heatmaps = torch.tensor([[0.9, 0.8, 0.1, 0.7]])
    similarity = torch.tensor([[0.2, 0.3, 0.9, 0.4]])
    chosen = {top: rules.choose(similarity, heatmaps, top=top).item() for top in (1, 2, 3, 4, 99)}
    assert chosen == {1: 0, 2: 1, 3: 3, 4: 2, 99: 2}
    assert rules.choose(similarity).item() == 2


def test_a_shift_by_part_of_a_patch_is_read_off_the_similarities():
    def around(x: float, y: float) -> torch.Tensor:
        rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
        return (1 - 0.1 * (columns - x) ** 2 - 0.2 * (rows - y) ** 2).flatten()[None]

    origin, chosen = torch.tensor([2 * 6 + 1]), torch.tensor([2 * 6 + 3])
    moved = rules.sub_patch_shift(around(1, 2), around(3.3, 1.8), origin, chosen, (5, 6))
    torch.testing.assert_close(moved, torch.tensor([[0.3, -0.2]]))
    askew = rules.sub_patch_shift(around(1.1, 1.9), around(3.1, 1.9), origin, chosen, (5, 6))
    torch.testing.assert_close(askew, torch.zeros(1, 2))


def test_nothing_is_refined_across_the_edge_of_the_frame():
    scores, inside = torch.rand(1, 30), torch.tensor([14])
    for edge in (0, 5, 24, 29):
        assert rules.sub_patch_shift(scores, scores, torch.tensor([edge]), inside, (5, 6)).tolist() == [[0, 0]]
        assert rules.sub_patch_shift(scores, scores, inside, torch.tensor([edge]), (5, 6)).tolist() == [[0, 0]]


def test_where_similarities_have_no_summit_nothing_is_refined():
    flat = torch.full((1, 30), 0.5)
    assert rules.sub_patch_shift(flat, flat, torch.tensor([8]), torch.tensor([14]), (5, 6)).tolist() == [[0, 0]]


@pytest.mark.parametrize("speed", [0.3, 0.45])
def test_refined_points_follow_a_motion_of_less_than_a_patch(monkeypatch, speed):
    waves = torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
    places = torch.tensor([(x, y) for y in range(6) for x in range(8)]).float()
    made = []

    class Passing:
        """Features whose similarity depends on how far apart in the world two patches are."""

        def __init__(self, net, pixels, method):
            phase = (places + torch.tensor([-speed, 0]) * len(made)) @ waves
            self.features = torch.cat([phase.cos(), phase.sin()], dim=1) / 8
            made.append(None)

    monkeypatch.setattr(tracking, "EncodedFrame", Passing)
    start, errors = [(40, 40), (24, 56)], {}
    for refine in (False, True):
        made.clear()
        frames = [noise(0, (96, 128))] * 8
        moved = positions(track_points(make_tiny_net(), frames, start, method="similarity", size=None, refine=refine))
        truth = np.array(start) + np.array([16 * speed, 0]) * np.arange(8)[:, None, None]
        errors[refine] = np.abs(moved - truth)[-1].max()
    assert errors[False] == pytest.approx(7 * 16 * speed)  # whole patches do not move at all
    assert errors[True] < 0.4 * errors[False]


# -- files ---------------------------------------------------------------------------------------------------------


def some_tracks() -> Tracks:
    steps = track_points(make_tiny_net(), [noise(seed) for seed in range(3)], [(3, 4), (50, 40.5)], draws=1, size=None)
    return Tracks.collect(steps, every=4, about={"video": "clip.mp4", "options": {"draws": 1, "level": None}})


@pytest.mark.parametrize("name", ["tracks.npz", "tracks.json"])
def test_saved_tracks_come_back_as_they_were(tmp_path, name):
    tracks = some_tracks()
    tracks.save(tmp_path / name)
    loaded = Tracks.load(tmp_path / name)
    for part in ("positions", "confidence", "lost", "frames"):
        before, after = getattr(tracks, part), getattr(loaded, part)
        np.testing.assert_array_equal(before, after)
        assert before.dtype == after.dtype
    assert loaded.about == tracks.about
    assert tracks.frames.tolist() == [0, 4, 8]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_files_that_hold_no_tracks_are_refused(tmp_path):
    (tmp_path / "other.json").write_text('{"format": "something else"}')
    with pytest.raises(ValueError, match=r"other.json holds no tracks .* its format is 'something else', wanted"):
        Tracks.load(tmp_path / "other.json")
    (tmp_path / "broken.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"broken.npz holds no tracks"):
        Tracks.load(tmp_path / "broken.npz")
    with pytest.raises(ValueError, match=r"tracks are kept as .npz or .json, got tracks.csv"):
        some_tracks().save("tracks.csv")
    with pytest.raises(FileNotFoundError):
        Tracks.load(tmp_path / "nothing.npz")


def test_arrays_that_do_not_fit_are_no_tracks():
    good = some_tracks()
    with pytest.raises(ValueError, match=r"tracks must be \(T, P, 2\)"):
        Tracks(good.positions, good.confidence[:, :1], good.lost, good.frames)
    with pytest.raises(ValueError, match="no tracked frames to collect"):
        Tracks.collect([])


# -- what is wrong is said -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (
            [(64, 0)],
            r"point 1, \(64, 0\), lies outside the frame of 64×48 pixels; x must be from 0 to 63, y from 0 to 47",
        ),
        ([(1, 1), (3, -0.5)], r"point 2, \(3, -0.5\), lies outside"),
        ([], "points must be at least one"),
        ([(1, 2, 3)], "points must be at least one"),
        ([(1, math.nan)], "points must be finite numbers"),
        ("here", "points must be at least one"),
    ],
)
def test_points_that_are_none_of_the_frame_are_refused(points, message):
    with pytest.raises(ValueError, match=message):
        list(track_points(make_tiny_net(), [noise(0)], points, method="similarity", size=None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "flow"}, "method must be 'dynamics' or 'similarity', got 'flow'"),
        ({"when_lost": "cry"}, "when_lost must be 'search', 'stop' or 'ignore', got 'cry'"),
        ({"top": 0}, "top must be at least 1, got 0"),
        ({"draws": 0}, "draws must be at least 1, got 0"),
        ({"lost_below": 2}, "lost_below must be from 0 to 1, got 2"),
        ({"level": 3}, r"level 3 is not one of the network's levels \(8, 5, 2\)"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_a_frame_is_read(options, message):
    with pytest.raises(ValueError, match=message):
        track_points(make_tiny_net(), iter(()), [(1, 1)], **options)


def test_an_encoder_alone_tracks_by_similarity_only():
    net = make_tiny_net(dynamics=False)
    with pytest.raises(ValueError, match="with method='similarity' it can track points"):
        track_points(net, [noise(0)], [(1, 1)])
    assert len(list(track_points(net, [noise(0), noise(1)], [(1, 1)], method="similarity", size=None))) == 2


def test_a_video_without_frames_or_of_changing_size_is_refused():
    with pytest.raises(ValueError, match="there are no frames to track points in"):
        list(track_points(make_tiny_net(), [], [(1, 1)]))
    changing = track_points(make_tiny_net(), [noise(0), noise(0, (48, 80))], [(1, 1)], size=None)
    next(changing)
    with pytest.raises(ValueError, match=r"frame 1 is 48×80 pixels \(height×width\), the first 48×64"):
        next(changing)


def test_a_grid_covers_the_frame_with_equal_steps():
    points = grid_points((50, 100), 4)
    assert points.tolist() == [[x, y] for y in (12, 37) for x in (12, 37, 62, 87)]
    with pytest.raises(ValueError, match="a grid has from 1 to 100 points across"):
        grid_points((50, 100), 0)
