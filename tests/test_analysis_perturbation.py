from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import make_tiny_net
from torch import nn

from midway_hub.analysis import tangents
from midway_hub.analysis.coarse_flow import coarse_flow
from midway_hub.analysis.flow_scores import flow_scores
from midway_hub.analysis.linearised import LinearisedPredictor
from midway_hub.analysis.perturbation import heatmaps_to_pixels, jacobian_heatmaps, perturbation_heatmaps
from midway_hub.analysis.tangents import JvpPush, LinearisedPush, make_push

GRID = (3, 4)
PATCHES = 12
WIDTH = 16


def make_net(**changes):
    """A network so narrow that a few directions are enough for its predictors to be linearised."""
    return make_tiny_net(embed_dim=WIDTH, num_heads=2, backward_heads=2, predictor_heads=2, **changes)


def frames(seed: int) -> torch.Tensor:
    return torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(seed))


def point(level: int = 2, **changes):
    """A float64 network's predictor of one level, with the motion tokens and source features it is asked at."""
    net = make_net(**changes).double()
    motion = net.infer_motion(frames(1).double(), frames(2).double())
    index = motion.levels.index(level)
    return net.dynamics.levels[str(level)], net.dynamics.motion_proj(motion.latents[index]), motion.source[index]


class Permutation(nn.Module):
    """A predictor that moves every patch to a known place and leaves its features as they are."""

    def __init__(self, places: torch.Tensor) -> None:
        super().__init__()
        self.places = places  # patch i goes to places[i]

    def predict(self, motion: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        cls, patches = source[:, :1], source[:, 1:]
        return torch.cat([cls, torch.zeros_like(patches).index_copy(1, self.places, patches)], dim=1)


def net_that_permutes(places: torch.Tensor):
    net = make_net()
    motion = net.infer_motion(frames(1), frames(2))
    net.dynamics.levels["2"] = Permutation(places)
    return net, motion


# -- random draws --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [8, 2])
def test_heatmaps_agree_with_finite_differences(level):
    net = make_net().double()
    motion = net.infer_motion(frames(1).double(), frames(2).double())
    heatmap = perturbation_heatmaps(net, motion, [5], level=level, draws=3)[0]

    predictor, tokens, refined = point(level)
    scores = []
    for direction in torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0)).double():
        step = torch.zeros_like(refined)
        step[0, 1 + 5] = 1e-4 * direction
        moved = predictor.predict(tokens, refined + step) - predictor.predict(tokens, refined - step)
        scores.append(torch.cosine_similarity(moved[0, 1:], direction[None], dim=-1))
    torch.testing.assert_close(heatmap.flatten(), torch.stack(scores).mean(0), rtol=1e-4, atol=1e-5)


def test_all_heatmaps_equal_a_loop_over_tokens_and_draws():
    net = make_net().double()
    motion = net.infer_motion(frames(1).double(), frames(2).double())
    heatmaps = perturbation_heatmaps(net, motion, draws=2, seed=3)

    predictor, tokens, refined = point()
    directions = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(3)).double()
    looped = torch.zeros(PATCHES, PATCHES, dtype=torch.double)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        for patch in range(PATCHES):
            for direction in directions:
                tangent = torch.zeros_like(refined)
                tangent[0, 1 + patch] = direction
                _, moved = torch.func.jvp(lambda source: predictor.predict(tokens, source), (refined,), (tangent,))
                looped[patch] += torch.cosine_similarity(moved[0, 1:], direction[None], dim=-1) / 2
    torch.testing.assert_close(heatmaps.flatten(1), looped, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tokens", [[0, 7, 11], None])
def test_heatmaps_do_not_depend_on_the_chunk(tokens):
    net = make_net()
    motion = net.infer_motion(frames(1), frames(2))
    whole = perturbation_heatmaps(net, motion, tokens, draws=5, chunk=100)
    for chunk in (1, 3, 7):
        pieces = perturbation_heatmaps(net, motion, tokens, draws=5, chunk=chunk)
        torch.testing.assert_close(whole, pieces, rtol=1e-4, atol=1e-5)


def test_some_heatmaps_are_those_of_the_whole_set():
    net = make_net()
    motion = net.infer_motion(frames(1), frames(2))
    whole = perturbation_heatmaps(net, motion, draws=5)
    assert whole.shape == (PATCHES, *GRID)
    torch.testing.assert_close(perturbation_heatmaps(net, motion, [9, 2], draws=5), whole[[9, 2]], rtol=1e-4, atol=1e-5)


def test_heatmaps_do_not_depend_on_the_attention_kernel():
    net = make_net().double()
    motion = net.infer_motion(frames(1).double(), frames(2).double())
    for tokens in ([4], None):
        fused = perturbation_heatmaps(net, motion, tokens, draws=5)
        for block in net.dynamics.levels["2"].predictor:
            block.attn.fused_attn = False
        torch.testing.assert_close(perturbation_heatmaps(net, motion, tokens, draws=5), fused, rtol=0, atol=1e-12)
        for block in net.dynamics.levels["2"].predictor:
            block.attn.fused_attn = True


# -- a world that shifts by whole patches --------------------------------------------------------------------------


def test_heatmap_peaks_follow_a_permutation():
    places = torch.randperm(PATCHES)
    net, motion = net_that_permutes(places)
    heatmaps = perturbation_heatmaps(net, motion, draws=2)
    torch.testing.assert_close(heatmaps.flatten(1), nn.functional.one_hot(places).float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shift", [(1, 0), (0, -1), (2, 1)])
def test_coarse_flow_of_a_shift_by_whole_patches_is_exact(shift):
    across, down = shift
    index = torch.arange(PATCHES).reshape(GRID)
    places = torch.empty(PATCHES, dtype=torch.long)
    places[index.flatten()] = index.roll((-down, -across), (0, 1)).flatten()  # what goes out comes in again opposite
    net, motion = net_that_permutes(places)
    flow = coarse_flow(perturbation_heatmaps(net, motion, draws=2))

    truth = torch.tensor(shift).mul(16).float()[None, :, None, None].expand(1, 2, 48, 64)
    rows, columns = torch.arange(48)[:, None] + 16 * down, torch.arange(64) + 16 * across
    inside = ((rows >= 0) & (rows < 48) & (columns >= 0) & (columns < 64))[None]
    scores = flow_scores(flow[None], truth, valid=inside)
    assert scores.patches == (3 - abs(down)) * (4 - abs(across))
    assert scores.epe == 0
    assert scores.hits == {0.5: 1, 1.0: 1, 2.0: 1}


# -- without draws -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [[5], None])
def test_exact_heatmaps_are_those_of_the_explicit_jacobian(tokens):
    predictor, latents, refined = point()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        jacobian = torch.func.jacrev(lambda source: predictor.predict(latents, source)[0, 1:])(refined)[:, :, 0, 1:]
    trace = torch.einsum("jdid->ij", jacobian)
    norm = jacobian.square().sum(dim=(1, 3)).sqrt().T

    net = make_net().double()
    motion = net.infer_motion(frames(1).double(), frames(2).double())
    picked = slice(None) if tokens is None else tokens
    alignment = jacobian_heatmaps(net, motion, tokens)
    gain = jacobian_heatmaps(net, motion, tokens, measure="gain", chunk=7)
    torch.testing.assert_close(alignment.flatten(1), (trace / norm / WIDTH**0.5)[picked], rtol=0, atol=1e-10)
    torch.testing.assert_close(gain.flatten(1), (norm / WIDTH**0.5)[picked], rtol=0, atol=1e-10)


def test_random_draws_tend_to_the_exact_heatmaps():
    net = make_net()
    motion = net.infer_motion(frames(1), frames(2))
    exact = jacobian_heatmaps(net, motion)
    errors = {k: (perturbation_heatmaps(net, motion, draws=k) - exact).abs().max().item() for k in (4, 400)}
    assert errors[400] < 0.05
    assert errors[400] < errors[4] / 3


def test_exact_alignment_of_a_permutation_is_one_where_the_patch_went():
    places = torch.randperm(PATCHES)
    net, motion = net_that_permutes(places)
    torch.testing.assert_close(jacobian_heatmaps(net, motion).flatten(1), nn.functional.one_hot(places).float())


# -- the predictor's derivative ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"gating": False}, {"predictor_depth": 1}, {"predictor_depth": 2}, {"predictor_depth": 3}]
)
def test_the_linearised_predictor_agrees_with_forward_mode_differentiation(changes):
    predictor, latents, refined = point(**changes)
    tokens, directions = torch.tensor([0, 3, 12]), torch.randn(5, WIDTH, dtype=torch.double)
    with torch.no_grad():
        found = LinearisedPredictor(predictor, latents, refined).push(tokens, directions)
        expected = JvpPush(predictor, latents, refined)(tokens, directions)
    assert found.shape == (15, 13, WIDTH)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_directions_pushed_through_one_by_one_and_together_agree(monkeypatch):
    predictor, latents, refined = point()
    tokens, directions = torch.tensor([0, 3, 12]), torch.randn(5, WIDTH, dtype=torch.double)
    with torch.no_grad():
        together = LinearisedPredictor(predictor, latents, refined).push(tokens, directions)
        monkeypatch.setattr("midway_hub.analysis.linearised.CACHED", 1)
        apart = LinearisedPredictor(predictor, latents, refined).push(tokens, directions)
    torch.testing.assert_close(together, apart, rtol=1e-12, atol=1e-13)


def test_the_predictor_is_linearised_where_that_pays_and_memory_allows(monkeypatch):
    predictor, latents, refined = point()
    with torch.no_grad():
        assert isinstance(make_push(predictor, latents, refined, directions=WIDTH), LinearisedPush)
        assert isinstance(make_push(predictor, latents, refined, directions=WIDTH - 1), JvpPush)
        other = Permutation(torch.arange(PATCHES))
        assert isinstance(make_push(other, latents, refined, directions=1000), JvpPush)
        monkeypatch.setattr(tangents, "MATRICES", 10_000)
        assert isinstance(make_push(predictor, latents, refined, directions=1000), JvpPush)


def test_the_matrices_take_as_much_memory_as_is_said():
    predictor, latents, refined = point()
    with torch.no_grad():
        blocks = LinearisedPredictor(predictor, latents, refined).blocks
    matrices = [matrix for block in blocks for matrix in (block.own, block.mixed, block.gated) if matrix is not None]
    assert len(matrices) == 9
    assert LinearisedPredictor.matrix_bytes(predictor, latents, refined) == sum(m.nbytes for m in matrices)


# -- pixels and errors ---------------------------------------------------------------------------------------------


def test_heatmaps_in_pixels_peak_at_the_centre_of_their_patch():
    heatmap = torch.zeros(1, *GRID)
    heatmap[0, 1, 2] = 1
    large = heatmaps_to_pixels(heatmap, (48, 64))
    assert large.shape == (1, 48, 64)
    row, column = divmod(int(large.argmax()), 64)
    assert row in (23, 24)
    assert column in (39, 40)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": [12]}, r"tokens must be patches from 0 to 11 of the \(3, 4\) grid, got \[12\]"),
        ({"tokens": []}, "tokens must be patches"),
        ({"tokens": [0], "level": 3}, r"level 3 is not one of the network's levels \(8, 5, 2\)"),
        ({"tokens": [0], "draws": 0}, "draws and chunk must be at least 1"),
        ({"tokens": [0], "chunk": 0}, "draws and chunk must be at least 1, got 16 and 0"),
    ],
)
def test_perturbing_what_is_not_there_is_refused(arguments, message):
    net = make_net()
    with pytest.raises(ValueError, match=message):
        perturbation_heatmaps(net, net.infer_motion(frames(1), frames(2)), **arguments)


def test_a_measure_that_is_not_there_is_refused():
    net = make_net()
    with pytest.raises(ValueError, match="measure must be 'alignment' or 'gain', got 'trace'"):
        jacobian_heatmaps(net, net.infer_motion(frames(1), frames(2)), [0], measure="trace")


def test_heatmaps_are_made_for_one_pair_at_a_time():
    net = make_net()
    motion = net.infer_motion(frames(1).repeat(2, 1, 1, 1), frames(2).repeat(2, 1, 1, 1))
    with pytest.raises(ValueError, match=r"motion must be that of one pair of frames, got target_context of shape \(2"):
        perturbation_heatmaps(net, motion, [0])


def test_large_frames_are_pushed_through_a_few_directions_at_a_time():
    small, large = (
        JvpPush(nn.Identity(), torch.zeros(1, 2, 4), torch.zeros(1, tokens, 4)).chunk for tokens in (50, 3601)
    )
    assert small == 8
    assert large == 2


# -- progress, interruption, threads -------------------------------------------------------------------------------


@pytest.mark.parametrize("heatmaps", [perturbation_heatmaps, jacobian_heatmaps])
@pytest.mark.parametrize("tokens", [[5], [0, 3, 11], None])
def test_progress_counts_every_direction_chunk_by_chunk_and_changes_nothing(heatmaps, tokens):
    net = make_net()
    motion = net.infer_motion(frames(1), frames(2))
    told = []
    found = heatmaps(net, motion, tokens, chunk=4, progress=lambda done, total: told.append((done, total)))
    each = 16  # draws by default, and the width
    total = len(tokens or range(PATCHES)) * each
    assert told == [(done, total) for done in range(0, total + 1, 4)]
    torch.testing.assert_close(found, heatmaps(net, motion, tokens, chunk=4), rtol=0, atol=0)


@pytest.mark.parametrize("heatmaps", [perturbation_heatmaps, jacobian_heatmaps])
@pytest.mark.parametrize("after", [0, 4, 12])
@pytest.mark.parametrize("tokens", [[5], None])
def test_what_progress_raises_ends_the_work_and_the_next_one_is_as_ever(heatmaps, after, tokens):
    net = make_net()
    motion = net.infer_motion(frames(1), frames(2))
    expected = heatmaps(net, motion, tokens, chunk=4)
    told = []

    def stop(done, total):
        told.append(done)
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        heatmaps(net, motion, tokens, chunk=4, progress=stop)
    assert told[-1] == after
    torch.testing.assert_close(heatmaps(net, motion, tokens, chunk=4), expected, rtol=0, atol=0)


def test_threads_that_ask_at_once_get_what_each_would_get_alone():
    net = make_net()
    motion = net.infer_motion(frames(1), frames(2))
    level = net.dynamics.levels["2"]
    push = JvpPush(level, net.dynamics.motion_proj(motion.latents[-1]), motion.source[-1])
    alone = [push(torch.tensor([token]), torch.ones(2, WIDTH)).detach() for token in range(4)]
    kernels = torch.backends.cuda.flash_sdp_enabled()

    def ask(token):
        return [push(torch.tensor([token]), torch.ones(2, WIDTH)).detach() for _ in range(12)]

    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(ask, range(4)))
    for one, many in zip(alone, together, strict=True):
        for moved in many:
            torch.testing.assert_close(moved, one, rtol=0, atol=1e-6)
    assert torch.backends.cuda.flash_sdp_enabled() == kernels
