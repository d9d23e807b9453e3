"""Packages that only parts of this one need, and the extra of it that brings each."""

from __future__ import annotations

EXTRAS = {
    "yaml": "train",
    "pydantic": "train",
    "lightning_fabric": "train",
    "h5py": "flow",
    "cv2": "peers",
    "ptlflow": "ptlflow",
    "skimage": "photographs",
    "submitit": "slurm",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "gradio": "app",
    "onnx": "export",
    "onnxscript": "export",
}
"""Extras by the name that a package is imported by."""


def how_to_install(package: str) -> str:
    """Say what to type to get a package: `pip install 'midway-hub[app]'`."""
    return f"pip install 'midway-hub[{EXTRAS[package]}]'"


def explained(trouble: BaseException) -> str:
    """Say what went wrong; where a package of an extra is missing, what to type to get it."""
    package = (trouble.name or "").partition(".")[0] if isinstance(trouble, ModuleNotFoundError) else ""
    if package not in EXTRAS:
        return str(trouble)
    return f"this needs the package {package}, which is not installed: {how_to_install(package)}"
