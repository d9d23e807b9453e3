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
