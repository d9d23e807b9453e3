import math

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import vit_small_patch16_224

from midway_hub import MidwayConfig
from midway_hub.models.encoder import MidwayEncoder, resize_position_embedding


def cubic(x: float, a: float = -0.75) -> float:
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def sample_by_hand(square: torch.Tensor, side: int, row: int, grid_h: int, column: int, grid_w: int) -> torch.Tensor:
    """DINO's resize at one output position, from the formula, in float64: (side, side, dim) -> (dim,)."""

    def taps(index: int, wanted: int) -> list[tuple[int, float]]:
        position = (index + 0.5) * side / (wanted + 0.1) - 0.5
        first = math.floor(position)
        return [(min(max(first + k, 0), side - 1), cubic(position - first - k)) for k in (-1, 0, 1, 2)]

    return sum(wy * wx * square[y, x] for y, wy in taps(row, grid_h) for x, wx in taps(column, grid_w))


@pytest.mark.parametrize("grid", [(6, 6), (20, 24), (7, 28), (14, 15), (1, 1)])
def test_position_resize_follows_dinos_rule(grid):
    embedding = torch.randn(1, 197, 5, dtype=torch.float64)
    resized = resize_position_embedding(embedding, 14, grid)
    square = embedding[0, 1:].reshape(14, 14, 5)
    assert torch.equal(resized[:, 0], embedding[:, 0])
    for row, column in {(0, 0), (grid[0] // 2, grid[1] // 3), (grid[0] - 1, grid[1] - 1)}:
        by_hand = sample_by_hand(square, 14, row, grid[0], column, grid[1])
        torch.testing.assert_close(resized[0, 1 + row * grid[1] + column], by_hand, rtol=1e-5, atol=1e-5)


def test_the_stored_grid_is_used_as_it_is():
    embedding = torch.randn(1, 197, 4)
    assert resize_position_embedding(embedding, 14, (14, 14)) is embedding


def test_a_grid_of_as_many_patches_but_another_form_is_resized():
    embedding = torch.randn(1, 197, 4)
    assert not torch.equal(resize_position_embedding(embedding, 14, (7, 28)), embedding)


def test_at_224_the_encoder_is_timms_vit_small():
    timm_model = vit_small_patch16_224(num_classes=0).eval()
    encoder = MidwayEncoder(MidwayConfig()).eval()
    encoder.load_state_dict(timm_model.state_dict())
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(encoder.tokens(images, [11])[0], timm_model.forward_features(images))


def test_tokens_come_in_the_order_asked():
    encoder = MidwayEncoder(MidwayConfig(embed_dim=24, num_heads=2, depth=3, dynamics=False)).eval()
    images = torch.randn(1, 3, 32, 32)
    first, last, again = encoder.tokens(images, [0, 2, 0])
    assert torch.equal(first, again)
    torch.testing.assert_close(encoder.tokens(images, [2])[0], last)


def test_encoder_has_the_published_number_of_parameters():
    count = sum(parameter.numel() for parameter in MidwayEncoder(MidwayConfig()).parameters())
    assert round(count / 1e6, 2) == 21.67


@pytest.mark.parametrize("grid", [(1, 1), (6, 6), (14, 15), (18, 32), (28, 14), (60, 107)])
@pytest.mark.parametrize("stored", [14, 5, 1])
def test_the_resize_is_torchs_bicubic_at_dinos_scale(grid, stored):
    embedding = torch.randn(1, 1 + stored**2, 6)
    square = embedding[:, 1:].unflatten(1, (stored, stored)).permute(0, 3, 1, 2)
    scale = tuple((side + 0.1) / stored for side in grid)
    by_torch = F.interpolate(square, scale_factor=scale, mode="bicubic").flatten(2).transpose(1, 2)
    resized = resize_position_embedding(embedding, stored, grid)
    torch.testing.assert_close(resized[:, 1:], by_torch, rtol=1e-4, atol=1e-4)


def test_several_embeddings_are_resized_as_one_would_be():
    both = torch.randn(2, 197, 5)
    resized = resize_position_embedding(both, 14, (9, 20))
    for number in (0, 1):
        alone = resize_position_embedding(both[number : number + 1], 14, (9, 20))
        torch.testing.assert_close(resized[number : number + 1], alone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_does_not_round_positions(dtype):
    embedding = torch.randn(1, 197, 5)
    expected = resize_position_embedding(embedding, 14, (9, 20))
    with torch.autocast("cpu", dtype=dtype):
        found = resize_position_embedding(embedding, 14, (9, 20))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_positions_keep_their_type(dtype):
    embedding = torch.randn(1, 197, 5)
    expected = resize_position_embedding(embedding, 14, (9, 20))
    found = resize_position_embedding(embedding.to(dtype), 14, (9, 20))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("size", [(30, 32), (32, 40), (15, 15)])
def test_frames_that_patches_do_not_cover_are_refused_by_the_encoder_itself(size):
    encoder = MidwayEncoder(MidwayConfig(embed_dim=24, num_heads=2, depth=1, dynamics=False)).eval()
    with pytest.raises(ValueError, match="both sides must be multiples of 16; the nearest legal sizes"):
        encoder.tokens(torch.randn(1, 3, *size), [0])
