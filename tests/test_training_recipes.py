"""The paper's recipes: each says what its row of a table differs in, and nothing else."""

import pytest

from midway_hub import MidwayConfig
from midway_hub.cards import card_of
from midway_hub.training.config import load_config
from midway_hub.training.engine.configuration import differences
from midway_hub.training.plan import make_plan
from midway_hub.training.recipes import list_recipes, read_recipe
from midway_hub.training.tasks.config import load_task_config

SETTINGS_OF_TABLE_3 = {  # backward, multi-level, refinement, gating, as the table's columns have them
    "row2_latent_dynamics": (False, False, False, False),
    "row3_backward": (True, False, False, False),
    "row4_multi_level": (True, True, False, False),
    "row5_refinement": (True, True, True, False),
    "row6_full": (True, True, True, True),
    "row7_no_backward": (False, True, True, True),
    "row8_no_multi_level": (True, False, True, True),
    "row9_no_refinement": (True, True, False, True),
}
DIFFERENCES_OF_TABLE_5 = {
    "midway_dim_half": {"motion_dim": (192, 96)},
    "midway_dim_double": {"motion_dim": (192, 384)},
    "midway_depth_1": {"midway_depth": (4, 1)},
    "midway_depth_2": {"midway_depth": (4, 2)},
    "forward_depth_1": {"predictor_depth": (4, 1)},
    "forward_depth_2": {"predictor_depth": (4, 2)},
}


def pretraining(name, *overrides):
    return load_config(f"paper/{name}", ["data.path=x", *overrides])


def changed(kind, one, other):
    """The keys in which two finetuning recipes differ, by what the second holds."""
    first, second = (load_task_config(kind, f"paper/{name}").to_dict() for name in (one, other))
    found = differences(first, second)
    return {key: new for key, (_, new) in found.items() if key not in ("recipe", "description")}


@pytest.mark.parametrize("row", SETTINGS_OF_TABLE_3)
def test_rows_of_table_3_have_the_components_of_the_table(row):
    model = MidwayConfig(**pretraining(f"table3_{row}").model)
    components = (model.backward, len(model.levels) > 1, model.refinement, model.gating)
    assert components == SETTINGS_OF_TABLE_3[row]
    assert model.levels in ([8, 5, 2], [8])


@pytest.mark.parametrize("variant", DIFFERENCES_OF_TABLE_5)
def test_variants_of_table_5_differ_from_the_full_row_in_one_number(variant):
    models = [MidwayConfig(**pretraining(name).model).to_dict() for name in ("table3_row6_full", f"table5_{variant}")]
    assert differences(*models) == DIFFERENCES_OF_TABLE_5[variant]


def test_every_ablation_is_a_100_epoch_run_on_two_gpus_and_differs_in_model_or_method_alone():
    names = [name for name in list_recipes("pretrain") if name.startswith(("paper/table3", "paper/table5"))]
    assert len(names) == len(SETTINGS_OF_TABLE_3) + 1 + len(DIFFERENCES_OF_TABLE_5)
    released = pretraining("bdd_vits").to_dict()
    for name in names:
        config = pretraining(name.removeprefix("paper/"))
        assert config.epochs == 100
        assert make_plan(config, items=70_000, world_size=2).timeline.batch_size == 200
        sections = {key.split(".")[0] for key in differences(released, config.to_dict())}
        others = {"views"} if config.method.name == "dino" else set()  # no view for dynamics that are not there
        assert sections <= {"recipe", "description", "epochs", "model", "method"} | others, name


def test_the_base_row_of_table_3_is_dino_and_says_that_this_is_an_inference():
    assert pretraining("table3_row1_base").method.name == "dino"
    assert "an inference" in read_recipe("paper/table3_row1_base")["description"]


def test_walking_tours_runs_300_epochs_where_the_recipe_says_so():
    short, long = pretraining("wt_venice_vits"), pretraining("wt_venice_300_vits")
    assert (short.epochs, long.epochs) == (100, 300)
    assert set(differences(short.to_dict(), long.to_dict())) == {"recipe", "description", "epochs"}


@pytest.mark.parametrize("data", ["bdd", "cityscapes"])
@pytest.mark.parametrize("head", ["linear", "upernet"])
def test_segmentation_of_vit_b_is_that_of_vit_s_from_its_weights(data, head):
    wanted = {"start.weights": "midway_vitb_bdd100k"} | ({"task.head.channels": 768} if head == "upernet" else {})
    name = f"segmentation_{data}_{head}_vit"
    assert changed("segmentation", f"{name}s", f"{name}b") == wanted


@pytest.mark.parametrize(
    ("base", "other", "wanted"),
    [
        ("flow_vits", "flow_wt_vits", {"start.weights": "midway_vits_wtvenice"}),
        ("flow_frozen_vits", "flow_frozen_vitb", {"start.weights": "midway_vitb_bdd100k"}),
        ("flow_frozen_vits", "flow_frozen_encoder_only_vits", {"start.dynamics": "reinitialised"}),
    ],
)
def test_other_rows_of_flow_differ_in_what_they_start_from(base, other, wanted):
    assert changed("flow", base, other) == wanted


@pytest.mark.parametrize(
    ("recipe", "card", "items", "gpus", "pairs", "paper_s"),
    [
        ("bdd_vitb", "midway_vitb_bdd100k", 70_000, 8, 800, "data.visits_per_step=40"),
        ("wt_venice_vits", "midway_vits_wtvenice", 80_000, 4, 80, "data.visits_per_step=200"),
    ],
)
def test_batches_that_are_in_doubt_are_named_in_recipe_and_card(recipe, card, items, gpus, pairs, paper_s):
    def batch(*overrides):
        return make_plan(pretraining(recipe, *overrides), items=items, world_size=gpus).timeline.batch_size

    assert batch() == pairs
    assert batch(paper_s) == 200
    assert f"{pairs} pairs a step (Table 8 says 200)" in pretraining(recipe).description
    text = " ".join(card_of(card).split())
    assert f"Pairs per step: {pairs} by the released recipe" in text
    assert "200 by the paper's Table 8; which of them ran is not known" in text


def test_lengths_that_are_in_doubt_are_named_in_recipe_and_card():
    for name in ("segmentation_ade20k_upernet_vits", "segmentation_wt_sem_upernet_vits"):
        config = load_task_config("segmentation", f"paper/{name}")
        assert config.steps == 160_000
        assert "or 60,000" in config.description
    assert "60 000 of 4 by the evaluation that the released recipe names" in card_of("midway_vits_wtvenice")
