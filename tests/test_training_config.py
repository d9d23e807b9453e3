"""Recipes and overrides become a typed configuration; whatever is wrong is named."""

import pytest
import yaml
from midway_hub.training.config import ConfigError, load_config, parse_settings
from midway_hub.training.data.packs import PackSettings
from midway_hub.training.recipes import list_recipes, load_recipe, read_recipe


def test_every_pretraining_recipe_is_a_valid_configuration():
    for name in list_recipes("pretrain"):
        needs_data = name.startswith("paper/")
        config = load_config(name, ["data.path=somewhere"] if needs_data else [])
        assert config.recipe == name
        assert config.description


def test_the_paper_recipes_switch_the_oddities_on_and_the_others_do_not():
    for name in list_recipes("pretrain"):
        config = load_config(name, ["data.path=x"] if name.startswith("paper/") else [])
        assert bool(config.compat.switched_on()) == name.startswith("paper/"), name


@pytest.mark.parametrize(
    ("name", "embed_dim", "visits", "epochs"),
    [("paper/bdd_vits", 384, 40, 300), ("paper/bdd_vitb", 768, 160, 300), ("paper/wt_venice_vits", 384, 80, 100)],
)
def test_the_paper_recipes_hold_the_papers_numbers(name, embed_dim, visits, epochs):
    config = load_config(name, ["data.path=x"])
    assert config.model["embed_dim"] == embed_dim
    assert config.data.visits_per_step == visits
    assert config.epochs == epochs
    assert config.data.gap.frames == (15, 30)
    assert (config.views.global_size, config.views.local_size, config.views.local_count) == (224, 96, 8)


def test_a_recipe_may_be_based_on_another():
    based, base = read_recipe("paper/bdd_vitb"), load_recipe("paper/bdd_vits")
    assert based["epochs"] == base["epochs"]
    assert based["method"] == base["method"]
    assert based["model"] == {**base["model"], "embed_dim": 768, "num_heads": 12}


def test_a_method_of_another_name_takes_nothing_of_the_base_recipes_method():
    assert read_recipe("paper/dino_bdd_vits")["method"] == {"name": "dino"}


def test_overrides_win_over_the_recipe():
    config = load_config(
        "smoke", ["engine.precision=bf16", "steps=7", "data.gap.frames=[2,3]", "method.head.hidden=64"]
    )
    assert config.engine.precision == "bf16"
    assert config.steps == 7
    assert config.data.gap.frames == (2, 3)
    assert config.method.head.hidden == 64


def test_a_key_of_the_recipe_can_be_taken_out():
    config = load_config("synthetic_small", ["method.name=dino", "~method.dynamics_weight"])
    assert config.method.name == "dino"
    assert (
        load_config("smoke", ["~engine.log_every"]).engine.log_every
        == load_config("smoke").engine.__class__().log_every
    )
    for unknown in ("~method.nope", "~nope.nope", "~nope"):
        with pytest.raises(ConfigError, match=f"{unknown} takes a key out that the recipe does not have"):
            load_config("smoke", [unknown])


def test_a_saved_configuration_reads_back_the_same(tmp_path):
    config = load_config("smoke", ["seed=3"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
    assert load_config(tmp_path / "config.yaml") == config


def test_a_recipe_of_ones_own_may_be_a_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: smoke\nsteps: 11\n")
    config = load_config(tmp_path / "mine.yaml")
    assert config.steps == 11
    assert config.recipe == str(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("engine.presision=bf16", r"unknown key 'engine\.presision'; did you mean 'engine\.precision'\?"),
        ("sede=1", r"unknown key 'sede'; did you mean 'seed'\?"),
        ("method.base_rl=1", r"unknown key 'method\.base_rl'; did you mean 'base_lr'|did you mean 'method\.base_lr'\?"),
        ("method.head.hiden=3", r"unknown key 'method\.head\.hiden'; did you mean 'method\.head\.hidden'\?"),
        ("model.embd_dim=48", r"unknown key 'model\.embd_dim'; did you mean 'model\.embed_dim'\?"),
        ("data.workers=many", r"data\.workers: .*integer.*got 'many'"),
        ("data.workers=-1", r"data\.workers: .*greater than or equal to 0, got -1"),
        ("method.name=jepa", r"method\.name is 'jepa'; there are: dino, midway"),
        ("model.embed_dim=50", r"embed_dim 50 is not a multiple of num_heads 4"),
        ("epochs=3", r"exactly one of epochs and steps, got epochs=3 and steps=30; set the other to null"),
        ("data.source=videos", r"data\.source=videos needs data\.path"),
        ("data.gap.frames=[30,15]", r"0 < least <= most"),
        ("engine.precision=fp8", r"engine\.precision: .*'fp32', 'bf16' or 'fp16'.*got 'fp8'"),
        ("data.gap.frames=[1, 3", r"cannot read the override data\.gap\.frames=\[1, 3"),
        ("nonsense", r"'nonsense' is not an override; write section\.key=value"),
    ],
)
def test_what_is_wrong_in_a_configuration_is_named(override, wanted):
    with pytest.raises(ConfigError, match=wanted):
        load_config("smoke", [override])


def test_all_mistakes_are_listed_at_once():
    with pytest.raises(ConfigError) as caught:
        load_config("smoke", ["data.workers=-1", "engine.log_evry=3"])
    assert "data.workers" in str(caught.value)
    assert "engine.log_evry" in str(caught.value)


def test_a_recipe_that_is_not_there_names_near_ones():
    with pytest.raises(ValueError, match=r"unknown recipe 'smok'; did you mean smoke"):
        load_config("smok")


def test_a_recipe_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"pico_untrained is a recipe of kind .init., wanted .pretrain."):
        load_config("pico_untrained")


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="holds list; a recipe is a YAML mapping"):
        load_config(tmp_path / "list.yaml")


def test_settings_of_one_section_are_read_from_assignments():
    assert parse_settings(PackSettings, ["form=h264", "short_side=480"]).short_side == 480
    with pytest.raises(ConfigError, match=r"unknown key 'shrt_side'; did you mean 'short_side'"):
        parse_settings(PackSettings, ["shrt_side=480"])
