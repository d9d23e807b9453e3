"""Flow as data: what a method is told of how unaugmented frames move, from a teacher or from the source itself."""

from midway_hub.training.data.flow_teacher.asked import FlowAsked, crop_flow, known_flow
from midway_hub.training.data.flow_teacher.settings import SOURCE, FlowTeacherSettings
from midway_hub.training.data.flow_teacher.teacher import FlowTeacher

__all__ = ["SOURCE", "FlowAsked", "FlowTeacher", "FlowTeacherSettings", "crop_flow", "known_flow"]
