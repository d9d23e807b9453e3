import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(code: str, cwd: Path, *flags: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *flags, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


def test_every_entry_of_the_contract_is_there_and_documented():
    spec = importlib.util.spec_from_file_location("hubconf", ROOT / "hubconf.py")
    hubconf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hubconf)
    entries = {name: entry for name, entry in vars(hubconf).items() if callable(entry) and not name.startswith("_")}
    names = "pico pico_untrained processor vitb vits vits_flow vits_seg vits_wt"
    assert sorted(entries) == [f"midway_{name}" for name in names.split()]
    for entry in entries.values():
        assert all(part in entry.__doc__ for part in ("Args:", "Returns:", "Example:"))


def test_entries_work_elsewhere_beside_packages_of_common_names(tmp_path):
    for decoy in ("src", "utils", "models"):
        (tmp_path / decoy).mkdir()
        (tmp_path / decoy / "__init__.py").write_text("DECOY = True\n")
    ran = run(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import src, utils, models
        import torch
        net = torch.hub.load({str(ROOT)!r}, "midway_pico", source="local")
        processor = torch.hub.load({str(ROOT)!r}, "midway_processor", source="local", fit="resize", size=(64, 96))
        frames = processor(torch.rand(2, 3, 50, 70))["pixel_values"]
        assert all(module.DECOY for module in (src, utils, models, sys.modules["models"]))
        print(tuple(net.encode(frames).last.shape), net.training, net.load_report.source)
        """,
        tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "(2, 64, 8, 12) False registry name midway_pico"


def test_the_hub_and_the_package_give_equal_features(tmp_path):
    ran = run(
        f"""
        import torch
        from midway_hub import MidwayNetwork
        frames = torch.randn(1, 3, 64, 64)
        by_hub = torch.hub.load({str(ROOT)!r}, "midway_pico", source="local").encode(frames).last
        by_package = MidwayNetwork.from_pretrained("midway_pico").encode(frames).last
        print(torch.allclose(by_hub, by_package, atol=1e-5))
        """,
        tmp_path,
    )
    assert ran.stdout.strip() == "True", ran.stderr


def test_without_pretrained_numbers_of_the_config_can_be_chosen(tmp_path):
    ran = run(
        f"""
        import torch
        net = torch.hub.load({str(ROOT)!r}, "midway_pico", source="local", pretrained=False, num_motion_tokens=3)
        print(net.dynamics.motion_tokens.shape[1], net.load_report)
        """,
        tmp_path,
    )
    assert ran.stdout.strip() == "3 None", ran.stderr


@pytest.mark.parametrize(("entry", "head"), [("midway_vits_flow", "flow"), ("midway_vits_seg", "segmentation")])
def test_entries_whose_head_is_not_published_say_so(tmp_path, entry, head):
    ran = run(f'import torch; torch.hub.load({str(ROOT)!r}, "{entry}", source="local")', tmp_path)
    assert ran.returncode == 1
    assert f"MissingHeadError: no vits checkpoint with a {head} head is published" in ran.stderr


def test_missing_dependencies_are_named(tmp_path):
    ran = run(
        f"""
        import importlib.util, sys, torch
        class Hide:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("timm", "safetensors"):
                    raise ModuleNotFoundError(f"No module named {{name!r}}")
        sys.meta_path.insert(0, Hide())
        real = importlib.util.find_spec
        importlib.util.find_spec = lambda n, p=None: None if n in ("timm", "safetensors") else real(n, p)
        torch.hub.load({str(ROOT)!r}, "midway_pico", source="local")
        """,
        tmp_path,
    )
    assert ran.returncode == 1
    assert "RuntimeError: Missing dependencies: timm, safetensors" in ran.stderr
