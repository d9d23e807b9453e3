import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from PIL import Image
from safetensors.numpy import load_file

from midway_hub import list_models

SAMPLE = str(files("midway_hub.samples") / "highway.mp4")


def cli(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """Run the installed command as a user would."""
    command = [str(Path(sys.executable).with_name("midway-hub")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120", **environment})


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.effect_noise((70, 50), 60).convert("RGB").save(path)
    return path


def test_help_names_every_command():
    ran = cli("--help")
    assert ran.returncode == 0
    for command in ("list", "info", "download", "convert", "verify", "features", "motion", "doctor", "demo"):
        assert command in ran.stdout


def test_version():
    assert cli("--version").stdout.strip() == "0.1.0"


def test_list_gives_every_registered_name():
    assert [entry["name"] for entry in json.loads(cli("list", "--json").stdout)] == list_models()
    assert "midway_pico_untrained" in cli("list", "*pico*").stdout


def test_info_shows_the_card_and_the_entry():
    card = cli("info", "midway_pico_untrained").stdout
    assert card.startswith("# midway_pico_untrained")
    assert "UNTRAINED" in card
    assert json.loads(cli("info", "midway_vits_bdd100k", "--json").stdout)["licence"] == "CC-BY-4.0"


def test_an_unknown_name_is_one_line_with_close_names():
    ran = cli("info", "midway_vits_bdd")
    assert ran.returncode == 1
    assert "error:" in ran.stderr
    assert "midway_vits_bdd100k" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_place_of_an_error_shows_on_request():
    assert "Traceback" in cli("info", "nothing", MIDWAY_HUB_DEBUG="1").stderr


def test_download_of_the_bundled_checkpoint_says_where_it_is():
    facts = json.loads(cli("download", "midway_pico_untrained", "--json").stdout)
    assert Path(facts["directory"], "model.safetensors").is_file()


def test_verify_passes_on_the_bundled_checkpoint():
    ran = cli("verify", "midway_pico_untrained", "--json")
    assert ran.returncode == 0
    assert all(check["passed"] for check in json.loads(ran.stdout))


def test_features_of_an_image_and_a_video(tmp_path, picture):
    out = tmp_path / "out"
    command = ("features", picture, SAMPLE, "-o", out, "--layers", "2,-1", "--every", 20, "--size", 64, "--json")
    ran = cli(*command)
    assert ran.returncode == 0, ran.stderr
    assert [item["frames"] for item in json.loads(ran.stdout)["done"]] == [1, 2]
    video = load_file(out / "highway.mp4.safetensors")
    assert video["last"].shape == (2, 64, 8, 15)
    assert video["layer_2"].shape == (2, 64, 8, 15)
    assert video["frame_indices"].tolist() == [0, 20]
    assert video["timestamps"].tolist() == pytest.approx([0.0, 0.8])
    again = json.loads(
        cli("features", picture, SAMPLE, "-o", out, "--layers", "2,-1", "--every", 20, "--size", 64, "--json").stdout
    )
    assert again["done"] == []
    assert len(again["skipped"]) == 2


def test_a_bad_video_fails_by_name_and_the_rest_is_done(tmp_path, picture):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video")
    ran = cli("features", picture, bad, "-o", tmp_path / "out", "--size", 32)
    assert ran.returncode == 1
    assert "bad.mp4" in ran.stderr
    assert "1 done" in ran.stdout
    assert (tmp_path / "out" / "picture.png.safetensors").is_file()


def test_motion_of_a_pair_of_images(tmp_path, picture):
    other = tmp_path / "other.png"
    Image.open(picture).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(other)
    ran = cli("motion", picture, other, "-o", tmp_path / "out", "--format", "npz", "--json")
    assert ran.returncode == 0, ran.stderr
    done = json.loads(ran.stdout)["done"]
    assert done[0]["pairs"] == 1
    assert Path(done[0]["file"]).is_file()


def test_untrained_weights_are_noted(tmp_path, picture):
    ran = cli("features", picture, "-o", tmp_path / "out", "-m", "midway_pico_untrained")
    assert "untrained weights" in ran.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dtype", "int8"], "--dtype must be one of float32, bfloat16, float16, got 'int8'"),
        (["--layers", "two"], "--layers must be block numbers such as 2,5,8 or -1, got 'two'"),
        (["--layers", "99"], "layers [99] do not exist"),
        (["--device", "tpu9"], "device 'tpu9' is unknown to torch"),
        (["--model", "./nowhere"], "nowhere"),
    ],
)
def test_wrong_options_are_refused_in_words(tmp_path, picture, options, message):
    ran = cli("features", picture, "-o", tmp_path / "out", *options)
    assert ran.returncode == 1
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr


def test_doctor_examines_this_installation():
    found = json.loads(cli("doctor", "--json").stdout)
    assert found["versions"]["midway-hub"] == "0.1.0"
    assert found["versions"]["torch"]
    assert found["would_use"]["reader_for_the_sample_clip"] in found["readers"]
    assert found["cache"]["writable"] in (True, False)


def test_doctor_advises_when_offline_or_the_cache_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    found = json.loads(cli("doctor", "--json", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hf")).stdout)
    assert any("offline by environment variable" in sentence for sentence in found["advice"])


def test_demo_prints_the_page(tmp_path):
    ran = cli("demo", "-o", tmp_path, "--frames", 2, "--json")
    assert ran.returncode == 0, ran.stderr
    assert Path(json.loads(ran.stdout)["open"]).is_file()


def test_features_of_a_folder_become_one_table(picture, tmp_path):
    ran = cli("features", picture, "-o", tmp_path / "out", "--table", tmp_path / "all.csv")
    assert ran.returncode == 0, ran.stderr
    header, row = (tmp_path / "all.csv").read_text(encoding="utf-8").splitlines()
    assert header.startswith("source,frame,seconds,feature_0")
    assert row.startswith("picture.png,0,0.0,")
    refused = cli("features", picture, "-o", tmp_path / "out", "--table", tmp_path / "out/all.npz")
    assert refused.returncode == 1
    assert "put it beside" in refused.stderr
