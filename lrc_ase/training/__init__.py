"""Training: from labelled frames to a potential file."""

from lrc_ase.training.assignments import changed_configuration
from lrc_ase.training.configuration import (
    ConfigurationError,
    TrainingConfiguration,
    load_configuration,
    parse_configuration,
    write_configuration,
)
from lrc_ase.training.data_arguments import default_configuration
from lrc_ase.training.interruption import TrainingInterrupted
from lrc_ase.training.run import train

__all__ = [
    "ConfigurationError",
    "TrainingConfiguration",
    "TrainingInterrupted",
    "changed_configuration",
    "default_configuration",
    "load_configuration",
    "parse_configuration",
    "train",
    "write_configuration",
]
