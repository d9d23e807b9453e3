"""Analyses of files, written as pictures and videos: what `midway-hub perturb`, `pca` and `trajectories` do."""

from midway_hub.analysis_pictures.feature_files import write_image_features, write_video_features
from midway_hub.analysis_pictures.perturb_files import read_pair, write_perturbation
from midway_hub.analysis_pictures.touch import LevelAnswer, Touch, touch_points
from midway_hub.analysis_pictures.trajectory_files import write_trajectories

__all__ = [
    "LevelAnswer",
    "Touch",
    "read_pair",
    "touch_points",
    "write_image_features",
    "write_perturbation",
    "write_trajectories",
    "write_video_features",
]
