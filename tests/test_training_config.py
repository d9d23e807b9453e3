"""Recipes and overrides become a typed configuration; whatever is wrong is named."""

import re

import pytest
import yaml

from midway_hub.training.commands._common import parsed_options
from midway_hub.training.compat import Compat
from midway_hub.training.config import ConfigError, load_config, parse_settings
from midway_hub.training.configuration import lengthened, validate
from midway_hub.training.data.packs import PackSettings
from midway_hub.training.data.segmentation.presets import FolderLayout
from midway_hub.training.kinds import settings_of
from midway_hub.training.recipes import kind_of, list_recipes, load_recipe, read_recipe
from midway_hub.training.recipes.shown import shown
from midway_hub.training.tasks.config import load_task_config
from midway_hub.training.yaml_text import parse_yaml


def test_every_pretraining_recipe_is_a_valid_configuration():
    for name in list_recipes("pretrain"):
        needs_data = name.startswith("paper/")
        config = load_config(name, ["data.path=somewhere"] if needs_data else [])
        assert config.recipe == name
        assert config.description


def test_the_paper_recipes_switch_the_oddities_on_and_the_others_do_not():
    for name in list_recipes("pretrain"):
        config = load_config(name, ["data.path=x"] if name.startswith("paper/") else [])
        ours = isinstance(config.compat, Compat)
        assert bool(config.compat.switched_on()) == (name.startswith("paper/") and ours), name


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
        ("method.name=jepa", r"method\.name is 'jepa'; there are: cmp, croco, densecl, dino, dora"),
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


NAMES = [
    "012",
    "0123",
    "1e5",
    "1_000",
    "12:30:00",
    "yes",
    "[2024] clips",
    "a: b",
    "#x",
    "take #2",
    "*",
    "'x'",
    "{a}",
    "${a}",
]


@pytest.mark.parametrize("name", NAMES)
def test_text_stays_what_was_typed(name):
    config = load_config("smoke", ["data.source=videos", f"data.path={name}", f"data.pattern={name}"])
    assert str(config.data.path) == name
    assert config.data.pattern == name


def test_text_that_may_be_left_out_can_be_null():
    assert load_config("smoke", ["engine.wandb=mine", "engine.wandb=null"]).engine.wandb is None
    assert load_config("smoke", ["data.path=x", "data.path=null"]).data.path is None
    assert load_task_config("flow", "flow_synthetic_small", ["start.weights=null"]).start.weights is None


def test_a_folder_called_null_is_found_where_it_lies(tmp_path, monkeypatch):
    (tmp_path / "null").mkdir()
    monkeypatch.chdir(tmp_path)
    assert str(load_config("smoke", ["data.source=videos", "data.path=null"]).data.path) == "null"


def test_text_in_a_dictionary_of_paths_stays_what_was_typed():
    config = load_task_config("flow", "paper/flow_vits", ["data.roots.sintel=/data/take #2", "data.roots.things=012"])
    assert {name: str(path) for name, path in config.data.roots.items()}.items() >= {
        ("sintel", "/data/take #2"),
        ("things", "012"),
    }


def test_an_empty_path_is_refused():
    with pytest.raises(ConfigError, match=r"data\.path: the path is empty"):
        load_config("smoke", ["data.source=videos", "data.path="])


def test_the_home_folder_is_found_in_every_path_of_overrides_and_files(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_config("smoke", ["data.source=videos", "data.path=~/v"]).data.path == tmp_path / "v"
    (tmp_path / "mine.yaml").write_text("base: smoke\ndata: {source: videos, path: ~/v}\n")
    assert load_config(tmp_path / "mine.yaml").data.path == tmp_path / "v"
    flow = load_task_config(
        "flow",
        "paper/flow_vits",
        ["data.roots.sintel=~/s", "evaluation.root=~", "start.weights=~/w"],
    )
    assert flow.data.roots["sintel"] == tmp_path / "s"
    assert flow.evaluation.root == tmp_path
    assert flow.start.weights == str(tmp_path / "w")


def test_an_unknown_users_home_folder_is_named():
    with pytest.raises(ConfigError, match="a user that this machine does not know"):
        load_config("smoke", ["data.source=videos", "data.path=~nobody-of-this-name/v"])


@pytest.mark.parametrize(
    ("written", "value"),
    [("2e-2", 0.02), ("2E-2", 0.02), (".02", 0.02), ("0.02", 0.02), ("'2e-2'", 0.02)],
)
def test_a_number_is_the_same_in_a_file_and_as_an_override(tmp_path, written, value):
    (tmp_path / "mine.yaml").write_text(f"base: smoke\nmodel: {{initializer_range: {written}, mlp_ratio: 4e0}}\n")
    read = load_config(tmp_path / "mine.yaml").model
    over = load_config("smoke", [f"model.initializer_range={written}", "model.mlp_ratio=4e0"]).model
    assert read == over
    assert read["initializer_range"] == value
    assert all(type(number) is float for number in (read["initializer_range"], read["mlp_ratio"]))


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("model.mlp_ratio=wide", r"model\.mlp_ratio: .*number.*got 'wide'"),
        ("model.initializer_range=.nan", r"model\.initializer_range: .*finite"),
        ("model.mlp_ratio=.inf", r"model\.mlp_ratio: .*finite"),
        ("model.depth=true", r"model\.depth: a truth value is no number"),
        ("model.levels=[true]", r"model\.levels: a truth value is no number"),
        ("model.levels=[a]", r"model\.levels\.0: .*integer.*got 'a'"),
        ("model.depth=2.5", r"model\.depth: .*integer.*got 2\.5"),
        ("model.gating=3", r"model\.gating: .*boolean"),
        ("model.dynamics=false", r"leave dynamics out of the model"),
        ("steps=true", r"steps: a truth value is no number"),
        ("method.base_lr=.inf", r"method\.base_lr: .*finite"),
        ("steps.x=1", r"steps\.x lies below steps, which is 30 and no section"),
        ("model..depth=1", r"is not an override"),
        ("data.gap={frames: [1, 2], frames: [2, 3]}", r"'frames' stands twice"),
    ],
)
def test_every_number_is_typed(override, wanted):
    with pytest.raises(ConfigError, match=wanted):
        load_config("smoke", [override])


@pytest.mark.parametrize(
    ("kind", "recipe", "override", "wanted"),
    [
        ("flow", "flow_synthetic_small", "task.head.feature_dim=wide", r"task\.head\.feature_dim: .*got 'wide'"),
        ("flow", "flow_synthetic_small", "task.head.featur_dim=3", r"did you mean 'task\.head\.feature_dim'"),
        ("flow", "flow_synthetic_small", "start.model.mlp_ratio=x", r"start\.model\.mlp_ratio: .*got 'x'"),
        ("segmentation", "segmentation_synthetic_small", "task.head.dropout=x", r"task\.head\.dropout: .*got 'x'"),
        ("segmentation", "segmentation_synthetic_small", "data.options.ignore=[x]", r"data\.options\.ignore\.0: .*'x'"),
    ],
)
def test_dictionaries_of_keywords_are_typed_in_every_kind_of_run(kind, recipe, override, wanted):
    with pytest.raises(ConfigError, match=wanted):
        load_task_config(kind, recipe, [override])


def test_a_number_of_a_head_is_typed_in_a_file(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "kind: segmentation\nbase: segmentation_synthetic_small\ntask: {head: {dropout: 1e-1}}\n"
    )
    assert load_task_config("segmentation", tmp_path / "mine.yaml").task.head["dropout"] == 0.1


def test_a_number_where_a_file_should_hold_text_says_to_quote_it(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: smoke\ndata: {source: videos, path: 012}\n")
    with pytest.raises(ConfigError, match=r"data\.path: .*got 12; text that looks like one needs quotes"):
        load_config(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "base: smoke\ndata:\n  source: videos\n  path: /clips\nengine: {log_every: 1}\ndata:\n  workers: 2\n",
        "base: smoke\nsteps: 4\nsteps: 7\n",
        "base: smoke\nmethod:\n  head: {prototypes: 512, prototypes: 64}\n",
        "base: smoke\nengine: {precision: bf16}\nsteps: 3\nengine: {log_every: 1}\n",
    ],
)
def test_a_recipe_with_a_doubled_key_is_refused(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"mine\.yaml: the key '\w+' stands twice, in lines? \d"):
        load_config(tmp_path / "mine.yaml")


def test_a_recipe_is_read_as_utf_8_whatever_the_locale(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: smoke\ndescription: Straße – Übung\n", encoding="utf-8")
    assert load_config(tmp_path / "mine.yaml").description == "Straße – Übung"


def test_overrides_of_a_section_join_it_and_later_ones_win():
    config = load_config("smoke", ["method={base_lr: 1e-3}", "method.base_lr=2e-3", "data.gap={frames: [1, 2]}"])
    assert config.method.base_lr == 2e-3
    assert config.method.name == load_config("smoke").method.name
    assert config.data.gap.frames == (1, 2)


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_is_shown_as_one_that_does_the_same(name, tmp_path):
    kind = kind_of(name)
    values = read_recipe(name, kind=kind)
    text = shown(settings_of(kind), values)
    again = {key: value for key, value in parse_yaml(text, name).items() if key != "kind"}
    place = (
        {"path": "x"} if kind == "pretrain" and values.get("data", {}).get("source", "synthetic") != "synthetic" else {}
    )
    with_data = [{**each, "data": {**each["data"], **place}} if place else each for each in (values, again)]
    assert validate(settings_of(kind), with_data[0]) == validate(settings_of(kind), with_data[1])


def test_what_a_key_means_and_where_its_value_comes_from_is_shown():
    text = shown(settings_of("pretrain"), read_recipe("smoke"))
    assert "# Length of the run in optimizer steps.\nsteps: 30  # set by the recipe\n" in text
    assert re.search(r"\n  # Micro-batches per optimizer step and process\.(.*\n  # .*)*\n  accumulate: 1\n", text)
    assert "mlp_ratio" in text


def test_a_run_may_become_longer_in_what_it_is_counted_in_and_never_shorter():
    old = load_config("smoke")
    assert lengthened(old, load_config("smoke", ["engine.log_every=1"])) is None
    assert lengthened(old, load_config("smoke", ["steps=60"])).startswith("steps: 30 -> 60")
    with pytest.raises(ConfigError, match="30 steps long; it can go on for longer, not stop at steps=7"):
        lengthened(old, load_config("smoke", ["steps=7"]))
    with pytest.raises(ConfigError, match=r"counted in steps; make it longer with steps=N"):
        lengthened(old, load_config("smoke", ["steps=null", "epochs=2"]))


def test_options_of_a_data_set_are_read_as_overrides_are():
    given = ["images=012", "label_suffix=#2.png", "ignore=[1, 2]", "classes=[road, sky]", "published=3"]
    wanted = {"images": "012", "label_suffix": "#2.png", "ignore": [1, 2], "classes": ["road", "sky"], "published": 3}
    assert parsed_options(given, FolderLayout) == wanted
    assert parsed_options(["top_k=10", "size=short:240", "name=*.png"]) == {
        "top_k": 10,
        "size": "short:240",
        "name": "*.png",
    }
    with pytest.raises(ValueError, match="--set takes name=value, got 'x'"):
        parsed_options(["x"])


@pytest.mark.parametrize("key", ["3", "true", "~", "1.5"])
@pytest.mark.parametrize("place", ["{}: 4\n", "data: {{{}: 4}}\n", "model: {{{}: 4}}\n"])
def test_keys_that_are_no_text_are_refused_by_name(key, place, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("method: {name: midway}\nepochs: 1\n" + place.format(key))
    with pytest.raises(ConfigError, match="Keys should be strings"):
        load_config(path)
