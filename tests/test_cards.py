"""Model cards: in step with the registry, honest about whose numbers they show, never written over a person's text."""

import json
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from midway_hub import cards
from midway_hub.config import MidwayConfig
from midway_hub.hub import UnknownModelError, WeightsNotFoundError, write_model_card
from midway_hub.models.network import MidwayNetwork
from midway_hub.registry import get_entry, list_models

CHECKOUT = Path(__file__).resolve().parents[1] / "model_cards"
RELEASED = [name for name in list_models() if get_entry(name).repo_id]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "midway", "embed_dim": 384, "motion_dim": 192}))
    return tmp_path


def test_the_cards_are_in_step_with_the_registry() -> None:
    assert cards.out_of_step(CHECKOUT) == []


def test_the_check_names_cards_that_are_out_of_step_and_writing_brings_them_into_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--directory", str(tmp_path)]
    assert cards.main(["--write", *arguments]) == 0
    (tmp_path / "midway_vits_bdd100k.md").write_text("old")
    (tmp_path / "midway_vitb_bdd100k.md").unlink()
    (tmp_path / "midway_removed.md").write_text("of a name that is gone")
    assert cards.main(["--check", *arguments]) == 1
    assert "Out of step: midway_removed, midway_vitb_bdd100k, midway_vits_bdd100k" in capsys.readouterr().err
    assert cards.main(["--write", *arguments]) == 0
    assert cards.main(["--check", *arguments]) == 0
    assert not (tmp_path / "midway_removed.md").exists()


@pytest.mark.parametrize("name", list_models())
def test_the_header_is_one_that_the_hub_reads(name: str) -> None:
    entry = get_entry(name)
    data = ModelCard(cards.card_of(name)).data.to_dict()
    assert data["license"] == entry.licence.lower()
    assert data["library_name"] == "midway_hub"
    assert data["pipeline_tag"] == "image-feature-extraction"
    assert data.get("datasets", []) == list(entry.datasets)


@pytest.mark.parametrize("name", list_models())
def test_a_card_shows_how_to_load(name: str) -> None:
    card = cards.card_of(name)
    assert f'MidwayNetwork.from_pretrained("{name}")' in card
    assert f'"{get_entry(name).torch_hub}", source="local"' in card
    assert f'AutoModel.from_pretrained(resolve("{name}").directory)' in card


@pytest.mark.parametrize("name", RELEASED)
def test_the_authors_numbers_are_shown_as_theirs(name: str) -> None:
    card = cards.card_of(name)
    head = card.index("## Reported by Hoang & Ren, arXiv 2510.05558")
    assert "This project measured none of them." in card[head:]
    for number in get_entry(name).reported:
        assert card.index(f"| {number.task} | {number.value} | {number.source} |") > head


@pytest.mark.parametrize("name", RELEASED)
def test_reported_numbers_are_those_of_the_paper(name: str, shared: Path) -> None:
    paper = (shared / "spec" / "results.md").read_text(encoding="utf-8")
    for number in get_entry(name).reported:
        assert number.value.replace(" ", "") in paper, number


@pytest.mark.parametrize("name", RELEASED)
def test_the_licence_names_the_authors(name: str) -> None:
    card = cards.card_of(name)
    assert "[CC-BY-4.0](https://creativecommons.org/licenses/by/4.0/)" in card
    assert "Hoang & Ren. Midway Network" in card
    assert "https://huggingface.co/agentic-learning-ai-lab/Midway-Network" in card


def test_the_untrained_checkpoint_says_so_before_anything_else() -> None:
    card = cards.card_of("midway_pico_untrained")
    assert "untrained" in ModelCard(card).data.to_dict()["tags"]
    assert card.index("**UNTRAINED.**") < card.index("## ")
    assert "Reported by" not in card


@pytest.mark.parametrize("name", list_models())
def test_the_numbers_of_parameters_are_those_of_the_network(name: str) -> None:
    entry = get_entry(name)
    with torch.device("meta"):
        net = MidwayNetwork(MidwayConfig(**entry.architecture))
    followers = {id(weight) for copy in net.dynamics.target_side() for weight in copy.parameters()}
    encoder = sum(weight.numel() for weight in net.encoder("student").parameters())
    dynamics = sum(weight.numel() for weight in net.dynamics.parameters() if id(weight) not in followers)
    assert list(entry.parameters.values())[:2] == [encoder, dynamics]


def test_the_numbers_of_parameters_of_bundled_heads_are_those_of_the_network() -> None:
    net = MidwayNetwork.from_pretrained("midway_pico")
    heads = {"flow head": net.flow_head, "segmentation head": net.segmentation_head}
    counted = {name: sum(weight.numel() for weight in head.parameters()) for name, head in heads.items()}
    assert dict(list(get_entry("midway_pico").parameters.items())[2:]) == counted


def test_the_card_of_an_unknown_name_is_refused() -> None:
    with pytest.raises(UnknownModelError, match="Did you mean 'midway_vits_bdd100k'"):
        cards.card_of("midway_vits_bdd")


def test_a_saved_network_gets_a_card_with_its_architecture(saved: Path) -> None:
    text = write_model_card(saved).read_text()
    assert "| `embed_dim` | `384` |" in text
    assert ModelCard(text).data.to_dict()["library_name"] == "midway_hub"
    assert "license" not in ModelCard(text).data.to_dict()


def test_a_network_made_from_released_weights_states_their_licence(saved: Path) -> None:
    text = write_model_card(saved, base="midway_vitb_bdd100k").read_text()
    assert ModelCard(text).data.to_dict()["license"] == "cc-by-4.0"
    assert "Made from the weights of `midway_vitb_bdd100k` (CC-BY-4.0): Hoang & Ren" in text


def test_a_converted_release_states_its_licence_and_origin_by_itself(saved: Path) -> None:
    record = {"source": {"file": "midway-bdd-vit-s-ep300.pth", "sha256": "ab" * 32, "bytes": 1}}
    (saved / "conversion.json").write_text(json.dumps(record))
    text = write_model_card(saved).read_text()
    assert "Made from the weights of `midway_vits_bdd100k`" in text
    assert f"Converted from `midway-bdd-vit-s-ep300.pth` (sha256 `{'ab' * 32}`)" in text


def test_a_hand_written_card_is_kept(saved: Path) -> None:
    (saved / "README.md").write_text("# Mine\n")
    assert write_model_card(saved).read_text() == "# Mine\n"


def test_a_generated_card_is_renewed_until_its_marker_is_deleted(saved: Path) -> None:
    card = write_model_card(saved)
    card.write_text(card.read_text() + "\nstale\n")
    assert "stale" not in write_model_card(saved).read_text()
    card.write_text(re.sub(r"<!-- Generated by midway_hub.*-->", "", card.read_text()) + "\nmine\n")
    assert write_model_card(saved).read_text().endswith("\nmine\n")


def test_a_folder_without_a_network_gets_no_card(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"has no config\.json: save the network there first"):
        write_model_card(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_card_of_an_unknown_base_is_refused(saved: Path) -> None:
    with pytest.raises(UnknownModelError, match="no checkpoint named 'midway_none'"):
        write_model_card(saved, base="midway_none")
