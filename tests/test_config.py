import json

import pytest

from midway_hub import MidwayConfig


def test_defaults_are_the_vit_s_of_the_paper():
    config = MidwayConfig()
    assert (config.embed_dim, config.depth, config.num_heads, config.motion_dim) == (384, 12, 6, 192)
    assert config.levels == [8, 5, 2]
    assert config.grid_size == 14


def test_a_saved_config_comes_back_equal(tmp_path):
    config = MidwayConfig(embed_dim=768, num_heads=12, motion_dim=384, levels=(9, 3), out_indices=[3, 12])
    config.save_pretrained(tmp_path)
    loaded = MidwayConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.levels == [9, 3]


def test_transformers_names_mean_the_same_numbers():
    config = MidwayConfig(embed_dim=128, num_heads=4, backward_heads=4, predictor_heads=4)
    assert (config.hidden_size, config.num_attention_heads, config.num_hidden_layers) == (128, 4, 12)


def test_a_config_saved_before_the_ablation_switches_describes_the_full_network(tmp_path):
    MidwayConfig().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    older = {key: value for key, value in saved.items() if key not in ("backward", "refinement", "gating")}
    assert len(older) == len(saved) - 3
    (tmp_path / "config.json").write_text(json.dumps(older))
    loaded = MidwayConfig.from_pretrained(tmp_path)
    assert (loaded.backward, loaded.refinement, loaded.gating) == (True, True, True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"embed_dim": 100}, "embed_dim 100 is not a multiple of num_heads 6"),
        ({"motion_dim": 64}, "motion_dim 64 is not a multiple of midway_heads 3"),
        ({"image_size": 225}, "image_size 225 is not a multiple of patch_size 16"),
        ({"depth": 0}, "depth must be a whole number of at least 1, got 0"),
        ({"depth": 12.0}, "depth must be a whole number of at least 1, got 12.0"),
        ({"levels": (2, 5, 8)}, "coarse (late) to fine (early), got [2, 5, 8]"),
        ({"levels": (12,)}, "between 0 and 11"),
        ({"levels": ()}, "different encoder blocks"),
        ({"target_network": "momentum"}, "target_network must be one of ('ema', 'shared'), got 'momentum'"),
        ({"gating": "no"}, "gating must be true or false, got 'no'"),
        ({"backward": 0}, "backward must be true or false, got 0"),
        ({"drop_path_rate": 1.0}, "drop_path_rate must be at least 0 and below 1"),
    ],
)
def test_numbers_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError) as error:
        MidwayConfig(**wrong)
    assert message in str(error.value)


SEGMENTATION = {"classes": ["a", "b"], "palette": [[0, 0, 0], [1, 1, 1]]}


@pytest.mark.parametrize(
    ("absurd", "message"),
    [
        ({"depth": 10**6}, "depth must be at most 1024, got 1000000"),
        ({"embed_dim": 10**9}, "embed_dim must be at most 16384, got 1000000000"),
        ({"num_motion_tokens": 10**9}, "num_motion_tokens must be at most 16384"),
        ({"patch_size": 10**9}, "patch_size must be at most 1024"),
        ({"image_size": 10**400}, "image_size must be at most 16384, got 1000"),
        ({"mlp_ratio": float("inf")}, "mlp_ratio must be above 0 and at most 64, got inf"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio must be above 0 and at most 64, got nan"),
        ({"mlp_ratio": -4}, "mlp_ratio must be above 0 and at most 64, got -4"),
        ({"mlp_ratio": "4e0"}, "mlp_ratio must be above 0 and at most 64, got '4e0'"),
        ({"mlp_ratio": 1e-9}, "mlp_ratio 1e-09 leaves an MLP of embed_dim 384 no width"),
        ({"initializer_range": float("inf")}, "initializer_range must be between 0 and 1, got inf"),
        ({"initializer_range": "2e-2"}, "initializer_range must be between 0 and 1, got '2e-2'"),
        ({"drop_path_rate": "0.1"}, "drop_path_rate must be at least 0 and below 1, got '0.1'"),
        ({"levels": 5}, "levels must be different encoder blocks between 0 and 11"),
        ({"levels": [8.0, 5, 2]}, "levels must be different encoder blocks"),
        ({"dtype": "float99"}, "dtype must be one of float32, float16, bfloat16, float64, got 'float99'"),
        ({"dtype": "int32"}, "dtype must be one of float32"),
        ({"torch_dtype": 7}, "torch_dtype must be one of float32, float16, bfloat16, float64, got 7"),
        ({"num_labels": 10**9}, "num_labels must be a whole number up to 65536, got 1000000000"),
        ({"num_labels": -1}, "num_labels must be a whole number up to 65536, got -1"),
        ({"num_labels": 2.5}, "num_labels must be a whole number up to 65536, got 2.5"),
        ({"id2label": 7}, "id2label must map numbers and names of classes, got 7"),
        ({"hidden_size": 10**9}, "embed_dim must be at most 16384, got 1000000000"),
        ({"num_hidden_layers": 10**6}, "depth must be at most 1024, got 1000000"),
        ({"num_attention_heads": 10**9}, "num_heads must be at most 1024, got 1000000000"),
        (
            {"embed_dim": 192, "hidden_size": 384},
            "embed_dim is 192, and hidden_size, another name for it, 384: give one",
        ),
        ({"flow_head": {"layer_dims": [10**9] * 4}}, "layer_dims must be at most 8192, got 1000000000"),
        ({"flow_head": {"feature_dim": 10**9}}, "feature_dim must be at most 8192"),
        ({"flow_head": {"tile": 5}}, "tile must be a list, got 5"),
        ({"flow_head": {"tile": [32]}}, "tile of a flow head are two numbers, got 1"),
        ({"flow_head": {"scale_bounds": [1, float("inf")]}}, "scale_bounds must be positive and rising"),
        ({"flow_head": {"scale_bounds": ["a", "b"]}}, "scale_bounds must be positive and rising"),
        ({"segmentation_head": {**SEGMENTATION, "channels": 10**9}}, "channels must be at most 8192"),
        (
            {"segmentation_head": {**SEGMENTATION, "pool_scales": [1] * 1000}},
            "pool_scales are at most 64 grids, got 1000",
        ),
        ({"segmentation_head": {**SEGMENTATION, "classes": "ab"}}, "classes must be a list, got 'ab'"),
        ({"segmentation_head": {**SEGMENTATION, "classes": [1, 2]}}, "classes of a segmentation head are names"),
        ({"segmentation_head": {**SEGMENTATION, "palette": [[0, 0, 0], [1, 1, 999]]}}, "palette is made of red, green"),
        ({"segmentation_head": {**SEGMENTATION, "layers": ["a"]}}, "layers must be numbers of at most 8192 blocks"),
        ({"segmentation_head": {**SEGMENTATION, "dropout": float("nan")}}, "dropout must be at least 0 and below 1"),
        ({"segmentation_head": {**SEGMENTATION, "slide": [64]}}, "slide is the side of a window and its step"),
    ],
    ids=str,
)
def test_absurd_numbers_are_refused_before_anything_is_made_of_them(absurd, message):
    with pytest.raises(ValueError) as error:
        MidwayConfig(**absurd)
    assert message in str(error.value)


def test_a_number_too_long_to_be_written_is_refused_all_the_same():
    with pytest.raises(ValueError, match="embed_dim must be at most 16384, got an int that is too long to write"):
        MidwayConfig(embed_dim=10**9000)


def test_transformers_names_set_the_same_numbers():
    config = MidwayConfig(hidden_size=768, num_hidden_layers=10, num_attention_heads=12)
    assert (config.embed_dim, config.depth, config.num_heads) == (768, 10, 12)
    assert config.stage_names[-1] == "stage10"
    assert MidwayConfig(embed_dim=192, hidden_size=192).embed_dim == 192


def test_a_network_that_a_number_too_many_was_set_on_later_is_refused_too():
    config = MidwayConfig()
    config.depth = 10**6
    with pytest.raises(ValueError, match="depth must be at most 1024"):
        config.check_numbers()
