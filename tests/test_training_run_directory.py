"""A run directory admits one job at a time, and only the run that it was made for."""

import json
import logging
import signal
from dataclasses import replace

import pytest
import yaml
from engine_job import Job, Started, no_process_stays, run, wait_for_step  # noqa: F401

from midway_hub._stored import DamagedFileError
from midway_hub.training.engine.configuration import differences
from midway_hub.training.engine.durable import replace_text
from midway_hub.training.engine.metrics import drop_lines_after
from midway_hub.training.engine.run_record import RunRecord
from midway_hub.training.engine.settings import MAY_CHANGE, EngineSettings


@pytest.fixture
def job(tmp_path):
    return Job(str(tmp_path / "run"), steps=4, engine={"log_every": 2, "checkpoint_every_steps": 2})


def test_a_second_job_in_the_same_directory_is_refused_by_the_name_of_the_first(tmp_path, job):
    first = Started(replace(job, seconds_per_step=5.0))
    wait_for_step(tmp_path / "run", 0)
    before = (tmp_path / "run/run.json").read_bytes()
    with pytest.raises(
        RuntimeError, match=rf"is in use by process {first.processes[0].pid} on \S+ since 2.*another run dir"
    ):
        run(job)
    assert (tmp_path / "run/run.json").read_bytes() == before
    first.signal(signal.SIGKILL)
    first.wait()


def test_the_lock_of_a_killed_job_is_no_obstacle(tmp_path, job):
    assert Started(replace(job, kill_at_step=3)).wait() == [-signal.SIGKILL]
    assert (tmp_path / "run/lock").exists()
    outcome, _ = run(job)
    assert outcome.state == "finished"


def test_another_configuration_is_refused_key_by_key(job):
    run(job)
    other = replace(job, width=32, engine={**job.engine, "precision": "bf16", "log_every": 1})
    with pytest.raises(ValueError, match="run of another configuration") as caught:
        run(other)
    assert 'engine.precision: null -> "bf16"' in str(caught.value)
    assert "model.width: 16 -> 32" in str(caught.value)
    assert "log_every" not in str(caught.value)
    assert "a run directory of their own" in str(caught.value)


def test_what_says_nothing_about_what_is_learned_may_change(tmp_path, job, caplog):
    run(replace(job, kill_at_step=None, steps=4))
    caplog.set_level(logging.INFO, "midway_hub")
    outcome, _ = run(replace(job, engine={**job.engine, "log_every": 1, "keep_last": 5}))
    assert outcome.state == "finished"
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["engine"]["keep_last"] == 5
    assert "engine.keep_last changed from None to 5" in caplog.text


def test_every_key_that_may_change_is_a_setting():
    assert {key.removeprefix("engine.") for key in MAY_CHANGE} <= set(EngineSettings.model_fields)


def test_keys_that_others_declare_may_change_with_all_below_them(job):
    run(job)
    outcome, _ = run(replace(job, dropout=0.5), may_change=("model.dropout",))
    assert outcome.state == "finished"
    with pytest.raises(ValueError, match=r"model\.dropout: 0\.5 -> 0\.7"):
        run(replace(job, dropout=0.7))


def test_other_data_are_refused(tmp_path, job):
    run(job)
    data = json.loads((tmp_path / "run/data.json").read_text())
    data["fingerprint"]["pairs"] = 99
    (tmp_path / "run/data.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"run of another data set(.|\n)*data.pairs: 99 -> 8"):
        run(job)


def test_files_that_could_not_be_read_are_listed_once_with_the_reason(tmp_path, job):
    assert Started(job, 2).wait() == [0, 0]
    rejected = json.loads((tmp_path / "run/data.json").read_text())["rejected"]
    assert rejected == [{"file": f"bad_{rank}.mp4", "reason": "no frames"} for rank in (0, 1)]


def test_the_record_says_what_ran_where_and_how_it_ended(tmp_path, job):
    run(job)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["state"] == "finished"
    assert record["versions"].keys() >= {"python", "torch", "midway-hub", "commit"}
    assert record["seed"] == 3
    assert record["world_size"] == len(record["devices"]) == 1
    assert record["heartbeat"]["step"] == 4


def test_an_error_is_noted_in_the_record(tmp_path, job):
    def broken(trainable):
        raise KeyboardInterrupt("stop")

    broken.name, broken.every = "broken", 3
    with pytest.raises(KeyboardInterrupt):
        run(job, probes=[broken])
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert (record["state"], record["error"]) == ("failed", "KeyboardInterrupt: stop")
    assert run(job)[0].state == "finished"
    assert "error" not in json.loads((tmp_path / "run/run.json").read_text())


def test_a_finished_run_is_left_as_it_is_and_gives_its_weights(tmp_path, job):
    _, first = run(job)
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    outcome, again = run(job)
    assert outcome.state == "finished"
    assert again.calls == []
    assert all((a == b).all() for a, b in zip(first.network.parameters(), again.network.parameters(), strict=True))
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


def test_the_newest_checkpoints_and_every_nth_stay(tmp_path, job):
    run(replace(job, steps=11, engine={"checkpoint_every_steps": 1, "keep_last": 2, "keep_every_steps": 4}))
    kept = {path.name for path in (tmp_path / "run/checkpoints").iterdir()}
    assert kept == {"step_4", "step_8", "step_10", "step_11"}


def test_minutes_also_make_checkpoints(tmp_path, job):
    run(replace(job, engine={"checkpoint_every_minutes": 1e-9, "keep_last": 9}))
    assert {path.name for path in (tmp_path / "run/checkpoints").iterdir()} == {f"step_{n}" for n in (1, 2, 3, 4)}


@pytest.mark.parametrize("tail", [b'{"step": 7, "lo', b'{"step": 9}\n{"step": 10}\n', b"\0\0\0\0", b"{}\n"])
def test_lines_after_the_checkpoint_and_half_a_line_are_cut_off(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 5}\n{"step": 6}\n' + tail)
    assert drop_lines_after(path, 8) == len(tail)
    assert path.read_bytes() == b'{"step": 5}\n{"step": 6}\n'


def test_a_file_that_cannot_be_replaced_keeps_its_content(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    replace_text(path, "old")

    def fail(path, data):
        path.write_bytes(data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("midway_hub.training.engine.durable.write_bytes", fail)
    with pytest.raises(OSError, match=r"No space left on device.*MiB free"):
        replace_text(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_incidents_beyond_a_thousand_are_only_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("midway_hub.training.engine.run_record._MOST_INCIDENTS", 3)
    record = RunRecord(tmp_path / "run.json")
    for step in range(5):
        record.incident("test", step, {})
    facts = json.loads((tmp_path / "run.json").read_text())
    assert (len(facts["incidents"]), facts["incident_count"]) == (3, 5)


def test_differences_name_dotted_keys_new_and_gone_ones_too():
    old = {"a": {"b": 1, "c": [1, 2]}, "gone": 3}
    new = {"a": {"b": 2, "c": [1, 2]}, "new": {"x": None, "y": 4}}
    assert differences(old, new) == {"a.b": (1, 2), "gone": (3, None), "new": (None, {"x": None, "y": 4})}


@pytest.mark.parametrize(
    ("name", "content", "seen"),
    [
        ("data.json", b"", "it is empty"),
        ("data.json", b"\0" * 200, "200 zero bytes"),
        ("data.json", b'{"fingerprint": {"items"', "line 1, column 25"),
        ("data.json", b"[]", "it holds a list, no mapping"),
        ("data.json", b"{}", "it has no 'fingerprint' and no 'rejected'"),
        ("data.json", b"\xff\xfe", "byte 0 is no UTF-8 text"),
        ("config.yaml", b"", "it holds nothing, no mapping"),
        ("config.yaml", b"\0" * 200, r"the character '\x00' at position 0"),
        ("config.yaml", b"model: {width: 16", "is no YAML in line 1"),
        ("config.yaml", b"- 1\n", "it holds a list, no mapping"),
    ],
)
def test_a_damaged_file_of_a_run_is_named_with_what_to_do(tmp_path, job, name, content, seen):
    run(job)
    (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises(DamagedFileError) as caught:
        run(job)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'run' / name} is damaged: ")
    assert seen in said
    assert "remove it" in said
    assert "\n" not in said
    (tmp_path / "run" / name).unlink()
    assert run(job)[0].state == "finished"


@pytest.mark.parametrize("content", [b"", b"\0" * 50, b"[]", b"{}", b'{"id": 1, "resumes": 2, "incidents": []}'])
def test_a_damaged_record_of_a_run_is_started_anew(tmp_path, job, content, caplog):
    run(job)
    (tmp_path / "run/run.json").write_bytes(content)
    assert run(job)[0].state == "finished"
    assert f"{tmp_path / 'run/run.json'} is damaged" in caplog.text
    assert json.loads((tmp_path / "run/run.json").read_text())["state"] == "finished"


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 50, b"[]", b'{"files": [], "config": {}}', b'{"files": {"a": 1}, "config": {}}']
)
def test_a_damaged_manifest_falls_back_to_the_checkpoint_before(tmp_path, job, content):
    run(job)
    manifest = tmp_path / "run/checkpoints/step_4/manifest.json"
    manifest.write_bytes(content)
    assert run(job)[0].state == "finished"
    assert (tmp_path / "run/checkpoints/step_4.damaged").is_dir()


def test_lines_lost_behind_a_damaged_one_are_told(tmp_path, caplog):
    lines = [json.dumps({"step": step}).encode() + b"\n" for step in (1, 2, 3, 4)]
    (tmp_path / "metrics.jsonl").write_bytes(lines[0] + b"\0\0\0\n" + lines[2] + lines[3])
    drop_lines_after(tmp_path / "metrics.jsonl", 3)
    assert (tmp_path / "metrics.jsonl").read_bytes() == lines[0]
    assert f"{tmp_path / 'metrics.jsonl'} is damaged: 1 of its lines" in caplog.text
