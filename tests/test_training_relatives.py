"""The relatives' losses and pieces, each against a formula written down anew or a case worked out by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.training.config import load_config
from midway_hub.training.evaluation.propagation.encoders import load_encoder as load_measured
from midway_hub.training.losses import cross_entropy
from midway_hub.training.methods import make_method
from midway_hub.training.methods.affine import inverse, survives, transformed, undone
from midway_hub.training.methods.block_masks import draw_block_masks
from midway_hub.training.methods.causal import CausalTransformer
from midway_hub.training.methods.centre import Centre
from midway_hub.training.methods.cmp import bin_loss, bin_of, expected_flow
from midway_hub.training.methods.croco import completion_loss, draw_kept, kept_tokens, patches_of
from midway_hub.training.methods.densecl import contrast_loss, matched_cells
from midway_hub.training.methods.dora import last_block
from midway_hub.training.methods.dynamo import covariance_loss, token_loss
from midway_hub.training.methods.flowe import FlowAlignedCompat, FloweNetwork, FloweSettings
from midway_hub.training.methods.guides import draw_guides
from midway_hub.training.methods.queue import FeatureQueue
from midway_hub.training.methods.sinkhorn import sinkhorn
from midway_hub.training.methods.subcrops import cut, plan_subcrops
from midway_hub.training.methods.tcore import agreement_loss, koleo_loss, masked_tokens, view_loss
from midway_hub.training.methods.tdv import prototype_loss
from midway_hub.training.timeline import Timeline

VIT = {"embed_dim": 48, "depth": 3, "num_heads": 4, "image_size": 32, "patch_size": 8}
LINE = Timeline(steps=20, steps_per_epoch=10, batch_size=4, visits_per_step=4)
HEAD = {"hidden": 24, "bottleneck": 16, "prototypes": 32}


def make(name, *, compat=None, timeline=LINE, model=None, views=None, **settings):
    torch.manual_seed(0)
    return make_method(name, settings, {**VIT, **(model or {})}, timeline, compat, views=views)


def double(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def encoder(**options):
    torch.manual_seed(0)
    return MidwayNetwork(MidwayConfig(**VIT, dynamics=False, target_network="shared", **options)).eval().student


# CroCo v2


def test_completion_is_the_squared_error_of_patches_that_are_normalised_by_themselves():
    predicted, pixels = double(2, 5, 12), double(2, 5, 12, seed=1)
    hidden = torch.tensor([[1, 0, 1, 0, 0], [0, 1, 1, 1, 0]], dtype=torch.bool)
    errors = []
    for b, n in hidden.nonzero().tolist():
        values = pixels[b, n].numpy()
        wanted = (values - values.mean()) / np.sqrt(values.var(ddof=1) + 1e-6)
        errors.append(((predicted[b, n].numpy() - wanted) ** 2).mean())
    assert completion_loss(predicted, pixels, hidden).item() == pytest.approx(np.mean(errors), rel=1e-10)


def test_of_196_patches_20_are_seen_and_never_twice():
    torch.manual_seed(0)
    keep = draw_kept(300, 196, 0.9, torch.device("cpu"))
    assert keep.shape == (300, 20)
    assert all(len(set(row)) == 20 and row == sorted(row) for row in keep.tolist())
    counts = torch.bincount(keep.flatten(), minlength=196).double()
    assert (counts / 300 - 20 / 196).abs().max() < 0.09


def test_patches_are_read_row_by_row_with_colours_last():
    image = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    found = patches_of(image, 2)
    assert found.shape == (2, 6, 12)
    assert found[1, 4].tolist() == [image[1, c, 2 + p, 2 + q].item() for p in (0, 1) for q in (0, 1) for c in (0, 1, 2)]


def test_an_encoder_that_sees_all_patches_gives_what_it_gives_for_the_image():
    vit, images = encoder(positions="rope"), torch.randn(2, 3, 32, 24)
    everything = torch.arange(12).expand(2, -1)
    (whole,) = vit.tokens(images, (2,))
    torch.testing.assert_close(kept_tokens(vit, images, everything), whole)
    some = torch.tensor([[1, 5, 11], [0, 2, 3]])
    assert kept_tokens(vit, images, some).shape == (2, 4, 48)
    changed = images.clone()
    changed[:, :, 8:16, 16:24] += 5  # patch 5 of the first image alone is seen
    ours, theirs = (kept_tokens(vit, pixels, some) for pixels in (images, changed))
    assert (ours[0] - theirs[0]).abs().max() > 1e-4
    torch.testing.assert_close(ours[1], theirs[1])


def test_croco_hands_flow_four_maps_and_wants_rotary_positions():
    method = make("croco", decoder={"dim": 24, "depth": 3, "heads": 2})
    maps = method.network.model.pair_features(torch.randn(1, 3, 32, 32), torch.randn(1, 3, 32, 32))
    assert [tuple(found.shape) for found in maps] == [(1, 48, 4, 4), (1, 24, 4, 4), (1, 24, 4, 4), (1, 24, 4, 4)]
    with pytest.raises(ValueError, match=r"needs model\.positions=rope, got 'learned'"):
        make("croco", model={"positions": "learned"})


def test_the_decoders_default_sizes_are_those_that_midways_comparison_gives_away():
    config = load_config("paper/croco_bdd_vits", ["data.path=videos"])
    decoder = make_method("croco", config.method, {"embed_dim": 384}, LINE).network.model.pair_decoder
    count = sum(p.numel() for p in decoder.parameters())
    assert 7.2e6 < count < 7.5e6


# DynaMo


def test_token_loss_is_one_minus_the_cosine():
    a, b = double(3, 4, 6), double(3, 4, 6, seed=1)
    cosine = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    torch.testing.assert_close(token_loss(a, b), 1 - cosine.mean())


def test_the_covariance_term_is_the_mean_square_off_the_diagonal():
    values = double(9, 5)
    covariance = np.cov(values.numpy().T)
    off = covariance[~np.eye(5, dtype=bool)]
    assert covariance_loss(values).item() == pytest.approx((off**2).mean(), rel=1e-10)


def test_a_causal_transformer_does_not_look_ahead():
    torch.manual_seed(0)
    net = CausalTransformer(6, 5, dim=16, depth=2, heads=2, length=4)
    sequence = torch.randn(1, 4, 6)
    changed = sequence.clone()
    changed[:, 2:] += 1
    ours, theirs = net(sequence).detach(), net(changed).detach()
    torch.testing.assert_close(ours[:, :2], theirs[:, :2])
    assert (ours[:, 2:] - theirs[:, 2:]).abs().min() > 0
    deep = [p for name, p in net.named_parameters() if name.endswith(("proj.weight", "fc2.weight"))]
    assert torch.stack([p.detach().std() for p in deep]).mean().item() == pytest.approx(0.02 / math.sqrt(4), rel=0.15)


def test_the_modified_dynamo_has_the_reported_13_million_parameters_of_dynamics():
    config = load_config("paper/dynamo_bdd_vits", ["data.path=videos"])
    with torch.device("meta"):
        method = make_method("dynamo", {**config.method.model_dump(), "head": HEAD}, {"embed_dim": 384}, LINE)
    count = sum(p.numel() for p in method.network.dynamics.parameters())
    assert 12.4e6 < count < 13.2e6


def window_batch():
    return {"frames": torch.randn(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))}


@pytest.mark.parametrize("target", ["stop_gradient", "ema"])
def test_targets_of_dynamo_get_no_gradient(target):
    from midway_hub.training.methods.dynamo import DynamoWindowViews

    method = make("dynamo_window", target=target, views=DynamoWindowViews(frames=3, size=32), covariance_weight=0)
    method.network.train()
    output = method.network(window_batch())
    output.losses["dynamics"].backward()
    if target == "ema":
        assert all(p.grad is None for p in method.network.model.teacher.parameters())
    # With the predictor of no use, nothing but the target could move the encoder.
    method.network.zero_grad()
    for parameter in method.network.forward_model.out.parameters():
        nn.init.zeros_(parameter)
    nn.init.ones_(method.network.forward_model.out.bias)
    method.network(window_batch()).losses["dynamics"].backward()
    assert all(p.grad is None or not p.grad.any() for p in method.network.model.student.parameters())


def test_dynamos_three_parts_are_clipped_apart_and_the_forward_model_keeps_its_rate():
    from midway_hub.training.methods.dynamo import DynamoWindowViews

    method = make("dynamo_window", views=DynamoWindowViews(frames=3, size=32), warmup_epochs=0)
    optimizer = method.make_optimizer()
    method.schedule(optimizer, 15)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates["forward_model_matrices"] == 1e-4
    assert rates["inverse_matrices"] == rates["student_matrices"] < 1e-4
    (100 * sum(method.network(window_batch()).losses.values())).backward()
    method.before_update(0)
    for owner in ("student", "inverse", "forward_model"):
        gradients = [p.grad for of, _, p in method._owned if of == owner and p.grad is not None]
        assert torch.nn.utils.get_total_norm(gradients) == pytest.approx(0.1, rel=1e-3)


# TDV


def test_prototype_loss_is_the_cross_entropy_of_two_distributions():
    student, teacher = double(3, 4, 7), double(3, 4, 7, seed=1).softmax(-1)
    by_hand = -(teacher * (student / 0.1).log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(prototype_loss(student, teacher, 0.1), by_hand)


def test_tdv_predicts_the_later_frame_from_the_earlier_one_and_the_difference():
    method = make("tdv", head=HEAD, motion={"depth": 2, "heads": 4})
    network = method.network.train()
    for parameter in network.motion.out.parameters():
        nn.init.zeros_(parameter)  # no change is predicted
    frames = torch.randn(2, 2, 3, 32, 32)
    output = network({"frames": frames})
    torch.testing.assert_close(output.losses["features"] / 1.5, output.diagnostics["copy_error"])
    still = network({"frames": frames[:, :1].expand(-1, 2, -1, -1, -1)})
    assert still.losses["features"] < 1e-9
    sum(output.losses.values()).backward()
    assert all(p.grad is None for p in network.model.teacher.parameters())
    assert network.motion.blocks[0].cross_attn.projk.weight.grad is not None


# Centres and queues


def test_a_centre_moves_by_the_mean_of_all_micro_batches_and_not_without_any():
    whole, parts = Centre(3, 0.9), Centre(3, 0.9)
    answers = torch.randn(8, 3)
    whole.gather(answers)
    for part in answers.split([2, 6]):
        parts.gather(part)
    for centre in (whole, parts):
        centre.move()
        torch.testing.assert_close(centre.value, 0.1 * answers.mean(0))
        before = centre.value.clone()
        centre.move()
        assert torch.equal(centre.value, before)
    parts.gather(answers)
    parts.forget()
    parts.move()
    torch.testing.assert_close(parts.value, whole.value)


def test_a_queue_is_first_in_first_out_over_micro_batches():
    torch.manual_seed(0)
    queue = FeatureQueue(6, 4)
    assert torch.allclose(queue.keys.norm(dim=1), torch.ones(6))
    keys = F.normalize(torch.randn(9, 4), dim=1)
    for step in range(3):
        queue.gather(keys[3 * step : 3 * step + 1])
        queue.gather(keys[3 * step + 1 : 3 * step + 3])
        queue.push()
    assert torch.equal(queue.keys, torch.cat([keys[6:9], keys[3:6]]))
    assert queue.next == 3
    queue.gather(keys[:4])
    with pytest.raises(ValueError, match="a queue of 6 keys cannot be filled by 4 at a time"):
        queue.push()


# DenseCL


def test_contrast_is_the_share_of_the_positive_among_all_keys():
    query, positive, negatives = (F.normalize(double(n, 5, seed=n), dim=1) for n in (3, 4, 6))
    positive = positive[:3]
    terms = []
    for q, k in zip(query, positive, strict=True):
        scores = [math.exp(float(q @ key) / 0.2) for key in (k, *negatives)]
        terms.append(-math.log(scores[0] / sum(scores)))
    assert contrast_loss(query, positive, negatives, 0.2).item() == pytest.approx(np.mean(terms), rel=1e-9)


def test_cells_are_matched_by_their_features_wherever_they_went():
    features = torch.randn(2, 8, 3, 3)
    order = torch.tensor([4, 2, 0, 1, 3, 5, 8, 7, 6])
    moved = 3 * features.flatten(2)[:, :, order].unflatten(2, (3, 3))
    assert torch.equal(matched_cells(features, moved), order.argsort().expand(2, -1))


def test_densecl_teaches_the_query_encoder_alone_and_fills_its_queues():
    method = make("densecl", queue=8, neck={"hidden": 16, "out": 8})
    before = method.network.whole_queue.keys.clone()
    method.network.train()
    sum(method.network({"views": torch.randn(4, 2, 3, 32, 32)}).losses.values()).backward()
    assert all(p.grad is None for p in method.network.teacher_backbone.parameters())
    assert torch.equal(method.network.whole_queue.keys, before)  # not before the step is taken
    method.after_update(0)
    assert (method.network.whole_queue.keys != before).any(dim=1).tolist() == [True] * 4 + [False] * 4
    with pytest.raises(ValueError, match=r"method\.queue 10 is not a multiple of the 4 pictures of a step"):
        make("densecl", queue=10)


def test_the_dense_share_can_begin_later():
    method = make("densecl", queue=8, dense_warmup_steps=1, neck={"hidden": 16, "out": 8})
    batch = {"views": torch.randn(4, 2, 3, 32, 32)}
    assert method.network(batch).losses["cells"] == 0
    method.after_update(0)
    assert method.network(batch).losses["cells"] > 0


# DoRA


def test_sinkhorn_balances_rows_and_columns_as_the_formula_does():
    similarity = double(1, 5, 3)[0]
    shares = np.exp((similarity.numpy() - similarity.numpy().max()) / 0.05).T
    shares /= shares.sum()
    for _ in range(30):
        shares /= shares.sum(axis=1, keepdims=True) * 3
        shares /= shares.sum(axis=0, keepdims=True) * 5
    found = sinkhorn(similarity[None])[0]
    np.testing.assert_allclose(found.numpy(), (shares * 5).T, rtol=1e-8)
    torch.testing.assert_close(found.sum(1), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(sinkhorn(similarity[None] * 0)[0], torch.full((5, 3), 1 / 3, dtype=torch.float64))


def test_sinkhorn_treats_every_sample_by_itself():
    both = torch.randn(2, 6, 3)
    torch.testing.assert_close(sinkhorn(both)[:1], sinkhorn(both[:1]))


def test_the_last_block_is_seen_as_it_computes():
    vit, images = encoder(num_registers=2), torch.randn(2, 3, 32, 32)
    seen = last_block(vit, images)
    torch.testing.assert_close(seen.tokens, vit.tokens(images, (2,))[0])
    assert seen.cls_attention.shape == (2, 4, 16)
    assert seen.queries.shape == seen.keys.shape == (2, 16, 48)
    assert ((seen.cls_attention.sum(-1) > 0) & (seen.cls_attention.sum(-1) < 1)).all()


def dora(**compat):
    from midway_hub.training.methods.dora import DoraCompat, DoraViews

    views = DoraViews(frames=2, global_size=32, local_size=16, local_count=3)
    return make("dora", head=HEAD, objects=2, compat=DoraCompat(**compat), views=views)


def test_doras_loss_and_its_two_oddities_by_hand():
    masked, near = double(2, 3, 2, 32), double(3, 2, 3, 32, seed=1)
    teacher = double(3, 2, 32, seed=2).softmax(-1)

    def entropy(student, known):
        return float(-(known * (student / 0.1).log_softmax(-1)).sum())

    def term(k, t, first):
        of_masked = np.mean([entropy(masked[k, b, t], teacher[b, t]) for b in range(3)])
        of_near = np.mean([entropy(near[b, t, v], teacher[b, t]) for b in range(3) for v in range(first, 3)])
        return (of_masked + of_near) / 2

    plain = np.mean([term(k, t, 0) for k in range(2) for t in range(2)])
    assert dora().network._loss(masked, near, teacher).item() == pytest.approx(plain, rel=1e-9)
    skipping = np.mean([term(k, t, 1) for k in range(2) for t in range(2)])
    odd = dora(first_local_is_skipped=True).network._loss(masked, near, teacher)
    assert odd.item() == pytest.approx(skipping, rel=1e-9)
    first = sum(term(0, t, 0) for t in range(2)) / 2
    second = (first + sum(term(1, t, 0) for t in range(2))) / 2
    leaking = dora(sums_leak_between_objects=True).network._loss(masked, near, teacher)
    assert leaking.item() == pytest.approx((first + second) / 2, rel=1e-9)


def test_masks_of_objects_keep_what_is_like_them_and_hide_the_rest():
    method = dora()
    network = method.network
    seen = last_block(network.model.teacher, torch.randn(4, 3, 32, 32))
    masks = network.track(seen, 2)
    assert masks.shape == (2, 2, 2, 16)
    assert masks.dtype == torch.bool
    assert 0.1 < masks.float().mean() < 0.9
    frames = torch.ones(2, 2, 3, 32, 32)
    hidden = network._masked(frames, masks)
    assert torch.equal(hidden[0, 1, 0, 0, ::8, ::8].flatten(), masks[0, 1, 0].float())
    assert torch.equal(hidden[..., :8, :8].amax(dim=(-1, -2)), hidden[..., :8, :8].amin(dim=(-1, -2)))


def test_cross_entropy_is_that_of_torch():
    student, teacher = double(5, 9), double(5, 9, seed=1).softmax(-1)
    torch.testing.assert_close(
        cross_entropy(student, teacher, 0.3), F.cross_entropy(student / 0.3, teacher, reduction="none")
    )


# T-CoRe


def test_the_loss_of_views_weighs_pairs_as_dinov2_does():
    globals_, locals_ = double(4, 6), double(2, 3, 6, seed=1)
    teacher = double(4, 6, seed=2).softmax(-1)

    def entropy(student, known):
        return float(-(known * (student / 0.1).log_softmax(-1)).sum())

    local = sum(
        np.mean([entropy(locals_[b, v], teacher[2 * q + b]) for b in range(2)]) for v in range(3) for q in (0, 1)
    )
    crossed = np.mean(
        [entropy(globals_[b], teacher[2 + b]) for b in range(2)]
        + [entropy(globals_[2 + b], teacher[b]) for b in range(2)]
    )
    assert view_loss(globals_, locals_, teacher, 0.1).item() == pytest.approx((local + 2 * crossed) / 8, rel=1e-9)


def test_koleo_is_the_log_of_the_distance_to_the_nearest():
    units = F.normalize(double(5, 4), dim=-1)
    nearest = [min(float((units[i] - units[j]).norm()) for j in range(5) if j != i) for i in range(5)]
    assert koleo_loss(3 * units).item() == pytest.approx(-np.mean(np.log(nearest)), rel=1e-5)
    assert koleo_loss(units[:1]) == 0
    for seed in range(40):  # rounding may put the cosine of opposites below -1
        one = F.normalize(double(1, 7, seed=seed).float(), dim=-1)
        assert koleo_loss(torch.cat([one, -one])).item() == pytest.approx(-math.log(2), abs=1e-4)


def test_agreement_is_a_mean_square_with_gradients_on_both_sides():
    past, future = double(3, 4).requires_grad_(), double(3, 4, seed=1).requires_grad_()
    loss = agreement_loss(past, future)
    torch.testing.assert_close(loss, F.mse_loss(past, future))
    loss.backward()
    torch.testing.assert_close(past.grad, -future.grad)
    assert agreement_loss(past[:0], future[:0]) == 0


def test_half_of_the_views_are_masked_by_blocks_of_a_tenth_to_a_half():
    generator = torch.Generator().manual_seed(0)
    masks = draw_block_masks(40, (14, 14), share=0.5, ratios=(0.1, 0.5), generator=generator)
    shares = masks.float().mean(dim=1)
    assert (shares > 0).sum() == 20
    assert shares.max() <= 0.5
    assert 0.2 < shares[shares > 0].mean() < 0.32
    grid = masks[shares.argmax()].view(14, 14)
    lonely = F.conv2d(grid[None, None].float(), torch.ones(1, 1, 3, 3), padding=1)[0, 0][grid] <= 1
    assert not lonely.any()


def test_masked_patches_are_not_seen():
    vit, images = encoder(num_registers=2), torch.randn(2, 3, 32, 32)
    masks = torch.zeros(2, 16, dtype=torch.bool)
    masks[0, 6] = True
    token = torch.randn(1, 1, 48)
    changed = images.clone()
    changed[:, :, 8:16, 16:24] += 3  # patch 6
    ours, theirs = (masked_tokens(vit, pixels, masks, token) for pixels in (images, changed))
    torch.testing.assert_close(ours[0], theirs[0])
    assert (ours[1] - theirs[1]).abs().max() > 1e-4
    torch.testing.assert_close(masked_tokens(vit, images, masks & False, token), vit.tokens(images, (2,))[0])


def test_masked_tokens_weigh_by_view_and_views_without_count_as_nothing():
    method = make("tcore", head=HEAD, matching_heads=4)
    network = method.network
    masks = torch.zeros(4, 16, dtype=torch.bool)
    masks[1, :2], masks[3, 5] = True, True
    found = network._complete(torch.randn(4, 16, 48), torch.randn(2, 4, 16, 48), torch.randn(4, 16, 48), masks)
    torch.testing.assert_close(found.weight, torch.tensor([1 / 8, 1 / 8, 1 / 4]))
    losses = network._completion_losses(found)
    terms = cross_entropy(found.past, found.target, 0.1)
    by_hand = (terms[:2].mean() + terms[2]) / 4
    torch.testing.assert_close(losses["past"], 0.8 * by_hand)


def test_deeper_blocks_learn_faster_and_parts_are_clipped_apart():
    network = make("tcore", head=HEAD, matching_heads=4).network
    assert network.lr_scale("model.student.blocks.2.attn.qkv.weight") == pytest.approx(0.9)
    assert network.lr_scale("model.student.blocks.0.attn.qkv.weight") == pytest.approx(0.9**3)
    assert network.lr_scale("model.student.patch_embed.proj.weight") == pytest.approx(0.9**4 * 0.2)
    assert network.lr_scale("mask_token") == pytest.approx(0.9**4)
    assert network.lr_scale("matching.linear.weight") == 0.1
    owners = {network.owner(name) for name, _ in network.named_parameters()}
    assert owners == {"student", "head", "matching"}


def test_past_and_future_views_get_no_gradient_and_the_matching_module_does():
    network = make("tcore", head=HEAD, matching_heads=4).network.train()
    others = torch.randn(2, 4, 3, 32, 32, requires_grad=True)
    batch = {"globals": torch.randn(2, 2, 3, 32, 32), "locals": torch.randn(2, 3, 3, 16, 16), "others": others}
    output = network(batch)
    sum(output.losses.values()).backward()
    assert others.grad is None
    assert network.matching.linear.weight.grad.abs().max() > 0
    assert network.mask_token.grad.abs().max() > 0


def test_the_teachers_temperature_rises():
    method = make("tcore", head=HEAD, matching_heads=4, temperature_epochs=2)
    assert [method.values(step)["teacher_temperature"] for step in (0, 10, 20)] == pytest.approx([0.04, 0.055, 0.07])


# FlowE and PooDLe


def affines(count, **options):
    from midway_hub.training.data.needs import PAIR, Crops, Needs
    from midway_hub.training.data.views import draw_views

    crops = Crops((32, 48), aspect=(1.5, 1.5), same_box=True, **options)
    draws = [draw_views(Needs(PAIR, {"c": crops}), (90, 120), np.random.default_rng(n)) for n in range(count)]
    return torch.from_numpy(np.stack([draw.groups["c"].affine[0] for draw in draws]))


def test_an_affine_undone_gives_the_picture_back_where_it_survives():
    smooth = F.interpolate(torch.randn(6, 1, 5, 7), size=(32, 48), mode="bicubic")
    affine = affines(6, rotate=15, scale=(0.9, 1.1), affine_flip=0.5)
    back = undone(transformed(smooth, affine), affine, (32, 48))
    kept = survives(affine, (32, 48))
    assert 0.5 < kept.float().mean() < 0.98
    assert (back - smooth)[:, 0][kept].abs().mean() < 0.03
    full = torch.cat([affine, torch.tensor([0.0, 0.0, 1.0]).expand(6, 1, 3)], dim=1)
    again = torch.cat([inverse(affine), torch.tensor([0.0, 0.0, 1.0]).expand(6, 1, 3)], dim=1)
    torch.testing.assert_close(full @ again, torch.eye(3).expand(6, 3, 3), atol=1e-5, rtol=0)


class Pixels(nn.Module):
    """An encoder whose features are the pixels themselves."""

    dims, strides = (3,), (1,)

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def maps(self, images):
        return [images + self.nothing]


def shifted_pair(dx=3, dy=-2):
    """Two frames of which the second is the first moved by whole pixels, and the flow both ways."""
    large = F.interpolate(torch.randn(1, 3, 12, 16, generator=torch.Generator().manual_seed(0)), size=(48, 64))
    first, second = large[..., 8:40, 8:56], large[..., 8 - dy : 40 - dy, 8 - dx : 56 - dx]
    flow = torch.tensor([dx, dy]).float().view(1, 2, 1, 1).expand(1, 2, 32, 48)
    known = torch.ones(1, 32, 48, dtype=torch.bool)
    identity = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(1, 2, 2, 3)
    return {
        "crops": torch.stack([first, second], dim=1),
        "crops/affine": identity.clone(),
        "flow/0/1": flow,
        "flow/1/0": -flow,
        "valid/0/1": known,
        "valid/1/0": known,
    }


def pixel_flowe(**compat):
    network = FloweNetwork(Pixels(), FloweSettings(head={"hidden": 4, "out": 3}), FlowAlignedCompat(**compat))
    network.projector = network.teacher_projector = network.predictor = nn.Identity()
    return network


def test_frames_that_moved_by_whole_pixels_are_aligned_exactly():
    output = pixel_flowe()(shifted_pair())
    assert output.losses["alignment"] < 1e-5
    assert 0.75 < output.diagnostics["aligned_pixels"] < (1 - 3 / 48) * (1 - 2 / 32) + 1e-6
    wrong = shifted_pair()
    wrong["flow/0/1"], wrong["flow/1/0"] = wrong["flow/1/0"], wrong["flow/0/1"]
    assert pixel_flowe()(wrong).losses["alignment"] > 0.1


def test_the_right_order_aligns_turned_frames_and_the_released_one_does_not():
    batch = shifted_pair(6, 4)
    batch["crops/affine"] = affines(2, rotate=15, scale=(0.9, 1.1), affine_flip=0.5)[None]
    right, released = (pixel_flowe(**each)(batch).losses["alignment"] for each in ({}, {"warps_before_undoing": True}))
    assert right < 0.25 * released
    ends = pixel_flowe(grid_ends_at_centres=True)(shifted_pair()).losses["alignment"]
    assert ends > 1e-3  # off by up to half a pixel


def test_frames_are_aligned_as_exactly_in_half_precision():
    batch = {**shifted_pair(), "crops/affine": affines(2, rotate=10, scale=(0.9, 1.1), affine_flip=0.5)[None]}
    exact = pixel_flowe()(batch).losses["alignment"]
    with torch.autocast("cpu", torch.bfloat16):
        half = pixel_flowe()(batch).losses["alignment"]
    torch.testing.assert_close(half, exact, rtol=1e-2, atol=1e-5)
    images, affine = torch.randn(2, 3, 64, 1024), affines(2, rotate=10)
    with torch.autocast("cpu", torch.bfloat16):
        found = transformed(images, affine)
    torch.testing.assert_close(found, transformed(images, affine))


def test_sub_crops_do_not_pile_up_at_the_edge():
    plan = plan_subcrops(torch.zeros(40, 2, 64, 128), count=6, area=(0.05, 0.1), aspect=(1, 1), jitter=0.0)
    assert (plan.source[..., 0] >= 63).float().mean() < 0.03
    assert (plan.source[..., 1] >= 127).float().mean() < 0.03


def test_pixels_count_where_flow_agrees_and_both_affines_keep_them():
    batch = shifted_pair()
    batch["flow/1/0"] = batch["flow/1/0"].clone()
    batch["flow/1/0"][..., 20:] += 5  # there and back leads 7 pixels away
    share = pixel_flowe()(batch).diagnostics["aligned_pixels"]
    assert share < 0.6


def test_sub_crops_follow_flow_where_it_leads_into_the_frame():
    flow = torch.zeros(2, 2, 64, 96)
    flow[0, 0], flow[0, 1] = 5, -3
    flow[1] = 500
    options = {"count": 6, "area": (0.05, 0.3), "aspect": (3 / 4, 4 / 3)}
    plan = plan_subcrops(flow, **options, jitter=0.0, generator=torch.Generator().manual_seed(0))
    moved = (plan.target - plan.source)[..., :2]
    assert plan.same_frame.tolist() == [[False] * 6, [True] * 6]  # flow of 500 pixels leads nowhere
    edges = torch.stack([plan.target[..., k] - plan.target[..., k + 2] / 2 for k in (0, 1)], dim=-1)
    ends = torch.stack([plan.target[..., k] + plan.target[..., k + 2] / 2 for k in (0, 1)], dim=-1)
    whole = (edges[0] > 0).all(-1) & (ends[0] < torch.tensor([64.0, 96.0])).all(-1)  # not clipped
    assert whole.any()
    assert ((moved[0, whole] - torch.tensor([-3.0, 5.0])).abs() <= 0.51).all()
    assert (edges >= -1e-4).all()
    assert (ends <= torch.tensor([64.0, 96.0]) + 1e-4).all()
    areas = plan.source[..., 2] * plan.source[..., 3] / (64 * 96)
    assert ((areas > 0.049) & (areas < 0.301)).all()
    larger = plan.target[..., 2] * plan.target[..., 3] / (64 * 96)
    assert (larger[0, whole] >= areas[0, whole] - 1e-4).all()
    assert len({tuple(box) for box in plan.source[0, :, :2].tolist()}) == 6


def test_a_cut_box_is_the_resized_window_and_nothing_lies_outside():
    images = torch.randn(1, 2, 16, 16)
    found = cut(images, torch.tensor([[[8.0, 4.0, 8.0, 8.0], [16.0, 16.0, 8.0, 8.0]]]), 8)
    torch.testing.assert_close(found[0], images[0, :, 4:12, 0:8], atol=1e-5, rtol=0)
    assert (found[1, :, 4:, 4:] == 0).all()


# CMP


def test_bins_cover_both_ways_equally_and_their_middles_come_back():
    flow = torch.tensor([-60.0, -50.0, -49.5, 0.0, 49.9, 80.0])
    assert bin_of(flow, largest=50, bins=99).tolist() == [0, 0, 0, 49, 98, 98]
    middles = -50 + (torch.arange(99) + 0.5) * 100 / 99
    logits = torch.full((1, 2, 99, 3, 33), -1e4)
    wanted = middles.view(1, 1, 3, 33).expand(1, 2, 3, 33)
    logits.scatter_(2, bin_of(wanted, largest=50, bins=99)[:, :, None], 0.0)
    torch.testing.assert_close(expected_flow(logits, 50.0), wanted)


def test_the_loss_of_bins_sums_axes_and_counts_valid_pixels_alone():
    logits, flow = double(2, 2, 9, 3, 4), 4 * double(2, 2, 3, 4, seed=1)
    valid = double(2, 3, 4, seed=2) > 0
    terms = []
    for b, y, x in valid.nonzero().tolist():
        each = [
            -float(logits[b, axis, :, y, x].log_softmax(0)[bin_of(flow[b, axis, y, x], largest=5, bins=9)])
            for axis in (0, 1)
        ]
        terms.append(sum(each))
    assert bin_loss(logits, flow, valid, largest=5).item() == pytest.approx(np.mean(terms), rel=1e-9)


def guides_of(flow, valid=None, **options):
    valid = np.ones(flow.shape[1:], bool) if valid is None else valid
    settings = {"background_ratio": 1e-9, "distance": 11, "most": None, **options}
    return draw_guides(flow, valid, np.random.default_rng(0), **settings)


def test_guides_stand_in_the_middle_of_what_moves_as_one():
    flow = np.zeros((2, 60, 80), np.float32)
    flow[0, 20:41, 30:51] = 9
    guides = np.array([place for place in np.argwhere(guides_of(flow)) if tuple(place) != (29, 39)])  # the grid's one
    inside = [(y, x) for y, x in guides.tolist() if 20 <= y <= 40 and 30 <= x <= 50]
    assert inside
    assert all(abs(y - 30) <= 3 and abs(x - 40) <= 3 for y, x in inside)
    apart = [max(abs(a - b)) for i, a in enumerate(guides) for b in guides[:i]]
    assert min(apart, default=99) >= 5


def test_what_is_not_valid_is_no_motion_of_its_own():
    flow, valid = np.full((2, 60, 80), 9, np.float32), np.ones((60, 80), bool)
    flow[:, 20:41, 30:51], valid[20:41, 30:51] = 0, False  # as flow that is not known comes
    everywhere = np.full((2, 60, 80), 9, np.float32)
    assert np.array_equal(guides_of(flow, valid), guides_of(everywhere, valid))


def test_a_grid_of_guides_is_centred_and_capped_and_avoids_what_is_not_valid():
    still = np.zeros((2, 50, 50), np.float32)
    grid = guides_of(still, background_ratio=1 / 100)
    rows, columns = (sorted({int(v) for v in axis}) for axis in np.nonzero(grid))
    assert rows == columns == [4, 14, 24, 34, 44]
    assert guides_of(still, background_ratio=1 / 100, most=7).sum() == 7
    valid = np.ones((50, 50), bool)
    valid[:25] = False
    assert not guides_of(still, valid, background_ratio=1 / 100)[:25].any()


def test_cmp_is_told_at_guides_and_never_sees_the_rest_of_the_flow():
    method = make("cmp", features=16, decoder_width=16, bins=9, largest_flow=8, guide_distance=5, background_ratio=0.02)
    network = method.network.eval()
    image, flow = torch.randn(1, 3, 32, 32), torch.randn(1, 2, 32, 32)
    guides = torch.zeros(1, 32, 32, dtype=torch.bool)
    guides[0, 8, 8] = True
    other = flow.clone()
    other[..., 9:] += 4
    torch.testing.assert_close(network.logits(image, flow, guides), network.logits(image, other, guides))
    other[..., 8, 8] += 4
    assert (network.logits(image, flow, guides) - network.logits(image, other, guides)).abs().max() > 1e-5
    assert network.logits(image, flow, guides).shape == (1, 2, 9, 32, 32)


@pytest.mark.parametrize("name", ["cmp", "densecl", "flowe", "poodle"])
def test_methods_of_maps_train_a_convolutional_encoder_and_hand_it_over(name, tmp_path):
    from midway_hub import load_encoder
    from midway_hub.training.pretraining import pretrain

    small = ["steps=2", "data.workers=0", "data.visits_per_step=2", "data.pairs_per_visit=2", "engine.progress=false"]
    skip = {"cmp": ["method.decoder=skip"], "densecl": ["method.queue=64"]}.get(name, [])
    recipe = tmp_path / "mine.yaml"
    values = load_config(f"small/{name}", [*small, *skip]).to_dict() | {"model": {"timm": "resnet10t"}}
    import yaml

    recipe.write_text(yaml.safe_dump(values))
    pretrain(load_config(recipe), tmp_path / "run")
    loaded = load_encoder(tmp_path / "run" / "export")
    assert loaded.encode(torch.randn(1, 3, 64, 64)).last.shape == (1, 512, 2, 2)
    assert "timm" in (tmp_path / "run" / "export" / "README.md").read_text()
    measured = load_measured(str(tmp_path / "run" / "export"), layer=-2)
    assert measured.encode(torch.randn(1, 3, 64, 96)).shape == (1, 256, 4, 6)
    with pytest.raises(ValueError, match="there is no map 9"):
        load_measured(str(tmp_path / "run" / "export"), layer=9)
    with pytest.raises(ValueError, match=r"load_encoder"):
        MidwayNetwork.from_pretrained(tmp_path / "run" / "export")


def test_a_convolutional_encoder_is_no_vit_and_a_name_that_timm_lacks_is_said():
    with pytest.raises(ValueError, match="trains a ViT; leave out timm='resnet10t'"):
        load_config("small/croco", ["model.timm=resnet10t"])
    with pytest.raises(ValueError, match="timm has no model 'resnet5o'; did you mean"):
        load_config("small/flowe", ["~model", "model.timm=resnet5o"])


def test_crocos_flow_is_read_off_its_own_decoder(tmp_path):
    from midway_hub.training.kinds import kind
    from midway_hub.training.pretraining import pretrain

    small = ["data.workers=0", "data.world.size=[48,64]", "engine.progress=false", "engine.log_every=1"]
    run = load_config("small/croco", ["steps=2", "data.visits_per_step=2", "data.pairs_per_visit=2", *small])
    pretrain(run, tmp_path / "croco")
    flow = kind("flow")
    options = [f"start.weights={tmp_path / 'croco' / 'export'}", "data.batch_size=2", "steps=2", *small]
    options += ["evaluation.every_steps=2", "evaluation.limit=2"]
    trained = flow.load("small/flow", [*options, "task.head.reads=decoder"])
    flow.run(trained, tmp_path / "flow")
    network = MidwayNetwork.from_pretrained(tmp_path / "flow" / "export")
    assert network.flow_reads_decoder
    assert not network.config.dynamics
    frames = torch.randn(3, 1, 3, 48, 72)
    outputs = list(network.flow_of_clip(frames, both=True))
    assert [output.flow.shape for output in outputs] == [(1, 2, 48, 72)] * 2
    torch.testing.assert_close(outputs[1].flow, network.flow(frames[1], frames[2]).flow)
    pretrained = MidwayNetwork.from_pretrained(tmp_path / "croco" / "export")
    with torch.no_grad():
        maps = pretrained.pair_features(frames[0], frames[1])
    assert [found.shape[1] for found in maps] == [96, 64, 64, 64]
    moved = network.pair_decoder.blocks[0].query.weight - pretrained.pair_decoder.blocks[0].query.weight
    assert moved.abs().max() < 0.05  # it began with the pretrained one
    with pytest.raises(ValueError, match=r"task\.head\.reads=decoder: .* has none; croco trains one"):
        flow.run(flow.load("small/flow", [*options[1:], "task.head.reads=decoder"]), tmp_path / "none")
