"""What makes worlds more like real pairs: warps, cut-out shapes, limbs, compression, and families in one batch."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from midway_hub.models.correlation.sampling import places, warp
from midway_hub.training.data.synthetic import (
    CLEAR,
    MotionSettings,
    TextureSettings,
    WorldSettings,
    render_clip,
    render_pairs,
)
from midway_hub.training.data.synthetic.atlas import atlas, find_photographs
from midway_hub.training.data.synthetic.draws import Draws
from midway_hub.training.data.synthetic.effects import compressed
from midway_hub.training.data.synthetic.examples import WorldBatches, WorldExamples, world_seed
from midway_hub.training.data.synthetic.lens import draw_lens
from midway_hub.training.data.synthetic.mixture import Mixture, WorldShare
from midway_hub.training.data.synthetic.placement import draw_placement
from midway_hub.training.data.synthetic.structures import SIDE, VARIANTS, distance, structures
from midway_hub.training.data.synthetic.worlds import LATER_NUMBERS, NUMBERS, Worlds
from midway_hub.training.tasks.flow_data import FlowData
from midway_hub.training.timeline import Timeline

CPU = torch.device("cpu")
TEXTURES = TextureSettings(tiles=6, tile_size=64)
SMOOTH = TextureSettings(tiles=4, tile_size=256, weights={"fractal": 1}, sharpness=(0.1, 0.2))
WORLD = WorldSettings(size=(64, 80), objects=(1, 4), textures=TEXTURES, effects=CLEAR)
SEEDS = list(range(8))


def world(**changes) -> WorldSettings:
    return WorldSettings.model_validate({**WORLD.model_dump(), **changes})


def test_a_lens_is_inverted_by_what_shows_a_place():
    lens = draw_lens(MotionSettings(warp=0.05), Draws(SEEDS, LATER_NUMBERS, block=1), 64, CPU)
    x, y = (axis.expand(8, 64, 80) for axis in places(torch.zeros(1, 1, 64, 80))[0].split(1))
    moved = lens.seen(*lens.shown(x, y))
    torch.testing.assert_close(torch.stack(moved), torch.stack([x, y]), atol=2e-3, rtol=0)
    along, down = lens.displacement(x, y)
    assert 0.5 < float(torch.hypot(along, down).amax()) <= 0.05 * 64
    still = lens.at(torch.zeros(8))
    assert torch.equal(still.seen(x, y)[0], x)


def test_flow_of_a_warped_world_is_exact():
    pairs = render_pairs(world(textures=SMOOTH.model_dump(), motion={"warp": 0.04, "displacement": (0, 0.1)}), SEEDS)
    seen = ~pairs.occluded
    back = warp(pairs.backward_flow, pairs.flow, outside="border")
    apart = (pairs.flow + back).norm(dim=1)[seen]
    assert float(apart.median()) < 1e-3
    moved = warp(pairs.second.float(), pairs.flow, outside="border")
    error = (moved - pairs.first.float()).abs().mean(1)[seen]
    assert float(error.median()) < 1
    unwarped = render_pairs(world(textures=SMOOTH.model_dump(), motion={"displacement": (0, 0.1)}), SEEDS)
    assert torch.equal(unwarped.first, pairs.first)
    assert not torch.equal(unwarped.second, pairs.second)


def test_nothing_that_was_added_changes_worlds_that_do_not_ask_for_it():
    plain = render_pairs(WORLD, SEEDS)
    zero = render_pairs(world(structures=0.0, articulation=0.0, motion={"warp": 0.0}), SEEDS)
    for name in ("first", "second", "flow", "labels"):
        assert torch.equal(getattr(plain, name), getattr(zero, name))


def test_distances_to_structures_have_the_right_sign_and_slope():
    table = structures(CPU)
    assert table.shape == (VARIANTS, SIDE, SIDE)
    share = (table > 0).flatten(1).float().mean(1)
    assert (share > 0.02).all()
    assert (share < 0.9).all()
    slope = (table[:, 1:] - table[:, :-1]).abs() * SIDE / 2
    assert float(slope.max()) < 1.01  # a distance grows by no more than one goes
    centre = torch.tensor([[[(40 + 0.5) * 2 / SIDE - 1]]])
    torch.testing.assert_close(distance(torch.tensor([5]), centre, centre)[0, 0, 0], table[5, 40, 40])


def test_structures_cut_objects_out_and_keep_what_shows_through_exact():
    solid, cut = render_pairs(WORLD, SEEDS), render_pairs(world(structures=1.0), SEEDS)
    objects = [int((pairs.labels > 2).sum()) for pairs in (solid, cut)]
    assert 0.05 * objects[0] < objects[1] < 0.8 * objects[0]
    seen = ~cut.occluded & (cut.labels > 2)
    apart = (cut.flow + warp(cut.backward_flow, cut.flow, outside="border")).norm(dim=1)[seen]
    assert float(apart.median()) < 1e-2


def test_limbs_turn_around_a_joint_that_their_carrier_takes_along():
    settings = world(articulation=1.0, objects=(6, 6), motion={"still_object": 0.0, "displacement": (1, 1)})
    motion = draw_placement(settings, Draws(SEEDS, NUMBERS), Draws(SEEDS, LATER_NUMBERS, block=1)).motion
    carriers, limbs = slice(3, 9, 2), slice(4, 9, 2)  # every second object, after three planes
    assert not motion.spin[:, carriers].any()
    assert motion.spin[:, limbs].any()
    times = np.array([[0.0, 1.0]] * len(SEEDS))
    seen = motion.at(times)
    joint = seen[:, :, limbs, :2, 2] / seen[:, :, limbs, 2:, 2]
    # The carrier's point of the same direction: their centres differ by an offset that does not turn.
    offset = (motion.origin[:, limbs] / 0.995 - motion.origin[:, carriers])[:, None]
    for row in range(len(SEEDS)):
        for index in range(3):
            axes = motion.axes[row, 3 + 2 * index]
            place, *_ = np.linalg.lstsq(axes, offset[row, 0, index], rcond=None)
            carried = seen[row, :, 3 + 2 * index] @ np.array([*place, 1.0])
            np.testing.assert_allclose(carried[:, :2] / carried[:, 2:], joint[row, :, index], atol=1e-3)


def test_compression_is_that_of_a_real_encoder_and_of_the_worlds_that_drew_it():
    frame = torch.randint(0, 256, (3, 40, 56), dtype=torch.uint8)
    rough, fine = compressed(frame, 10), compressed(frame, 95)
    errors = [(picture.float() - frame.float()).abs().mean() for picture in (rough, fine)]
    assert errors[0] > errors[1] > 0
    settings = world(effects={**CLEAR.model_dump(), "compression_probability": 0.5})
    plain, changed = render_pairs(WORLD, SEEDS), render_pairs(settings, SEEDS)
    same = [torch.equal(one, other) for one, other in zip(plain.first, changed.first, strict=True)]
    assert 0 < sum(same) < len(same)
    assert torch.equal(plain.flow, changed.flow)
    alone = render_pairs(settings, SEEDS[3:4])
    assert torch.equal(alone.first[0], changed.first[3])


SHARES = (
    WorldShare(weight=3, world={"motion": {"displacement": [0.0, 0.01]}}),
    WorldShare(weight=1, world={"motion": {"displacement": [0.3, 0.5], "object_shift": 0.5}, "objects": [2, 2]}),
)


def test_a_world_of_a_mixture_is_of_the_family_that_its_seed_says():
    mixture = Mixture.of(WORLD, SHARES)
    families = mixture.family(list(range(400)))
    assert 60 < families.sum() < 140  # one in four
    pairs = mixture.render(SEEDS)
    for row, seed in enumerate(SEEDS):
        alone = render_pairs(mixture.families[mixture.family([seed])[0]], [seed])
        assert torch.equal(alone.first[0], pairs.first[row])
        assert torch.equal(alone.flow[0], pairs.flow[row])
    assert Mixture.of(WORLD).families == (WORLD,)


def test_both_ways_of_rendering_give_the_same_examples_of_a_mixture():
    examples = WorldExamples(WORLD, "flow", shares=SHARES)
    line = Timeline(steps=2, steps_per_epoch=2, batch_size=4, visits_per_step=4)
    batches = WorldBatches(examples, seed=3, timeline=line)
    (batch,) = batches.iterate(0, 1)
    made = batches.finish(batch, CPU)
    assert set(made) == {"source", "target", "flow", "valid", "occluded"}
    for row, seed in enumerate(batch["seeds"]):
        assert torch.equal(examples.mixture.render([seed]).flow[0], made["flow"][row])
    one = examples.example(0, np.random.default_rng(5))
    seed = world_seed(np.random.default_rng(5))
    assert np.array_equal(one["occluded"], examples.mixture.render([seed]).occluded[0].numpy())


def test_a_mixture_is_part_of_what_identifies_the_data():
    plain, mixed = WorldExamples(WORLD, "flow"), WorldExamples(WORLD, "flow", shares=SHARES)
    assert "mixture" not in plain.fingerprint()
    found = mixed.fingerprint()
    assert found.pop("mixture") == [share.model_dump(mode="json") for share in SHARES]
    assert found.pop("mixture_photographs") == [[], []]
    assert found == plain.fingerprint()


def test_other_photographs_of_one_family_are_other_data(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    share = WorldShare(world={"textures": {"photographs": str(tmp_path)}})
    examples = WorldExamples(WORLD, "flow", shares=[share])
    before = examples.fingerprint()
    Image.new("RGB", (80, 80), "red").save(tmp_path / "b.png")
    assert examples.fingerprint() != before


def test_families_that_use_the_same_tiles_share_a_pool():
    one, other, third = (
        atlas(TextureSettings(**{"tiles": 4, "tile_size": 64, **changes}), CPU)
        for changes in ({"sharpness": (0.3, 0.5)}, {"recolour": 0.0}, {"tiles": 5})
    )
    assert one is other
    assert third is not one


def test_a_warp_goes_with_as_many_objects_as_there_can_be():
    pairs = render_pairs(world(objects=(29, 29), motion={"warp": 0.02}), SEEDS[:1])
    assert pairs.flow.isfinite().all()


def test_a_warped_clip_stays_exact_to_its_end():
    settings = world(objects=(0, 0), ground_probability=0.0, wall_probability=0.0, motion={"warp": 0.05})
    for seed in range(4):
        clip = render_clip(settings, seed, 6)
        apart = (clip.flow + warp(clip.backward_flow, clip.flow, outside="border")).norm(dim=1)[~clip.occluded]
        assert float(apart.quantile(0.99)) < 0.05


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ({"world": {"size": [32, 32]}}, r"worlds of a mixture have one size, \(64, 80\), got \(32, 32\)"),
        ({"world": {"colour": 1}}, "colour"),
        ({"weight": 0}, "greater than 0"),
        ({"world": {"objects": [3, 1]}}, "objects is a range"),
    ],
)
def test_shares_that_make_no_world_are_refused(share, message):
    with pytest.raises(ValueError, match=message):
        FlowData.model_validate({"world": WORLD.model_dump(), "mixture": [share]})


def test_what_is_measured_is_the_base_of_a_mixture():
    data = FlowData.model_validate({"world": WORLD.model_dump(), "mixture": [s.model_dump() for s in SHARES]})
    assert data.held_out("world", None, 2).settings == WORLD
    assert len(data.examples().mixture.families) == 2


def test_photographs_of_scikit_image_are_found_or_asked_for(monkeypatch):
    pytest.importorskip("skimage")
    found = find_photographs(Path("scikit-image"))
    assert "coffee.png" in [path.name for path in found]
    assert Worlds(world(textures={**TEXTURES.model_dump(), "photographs": "scikit-image"}), [0], CPU).atlas.levels > 1
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(FileNotFoundError, match=r"pip install 'midway-hub\[photographs\]'"):
        find_photographs(Path("scikit-image"))
