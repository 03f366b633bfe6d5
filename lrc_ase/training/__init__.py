"""Training: from labelled frames to a potential file, and its errors on other frames."""

from lrc_ase.training.configuration import (
    ConfigurationError,
    TrainingConfiguration,
    default_configuration,
    load_configuration,
    parse_configuration,
    write_configuration,
)
from lrc_ase.training.evaluation import Evaluation, evaluate_frames, write_evaluation
from lrc_ase.training.interruption import TrainingInterrupted
from lrc_ase.training.run import train
from lrc_ase.training.selection import Selection, select_frames

__all__ = [
    "ConfigurationError",
    "Evaluation",
    "Selection",
    "TrainingConfiguration",
    "TrainingInterrupted",
    "default_configuration",
    "evaluate_frames",
    "load_configuration",
    "parse_configuration",
    "select_frames",
    "train",
    "write_configuration",
    "write_evaluation",
]
