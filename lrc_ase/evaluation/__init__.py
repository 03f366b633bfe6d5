"""Comparison of predictions with labels: errors, uncertainties, and the choice of frames to label."""

from lrc_ase.evaluation.comparable import check_comparable
from lrc_ase.evaluation.evaluate import Evaluation, evaluate_frames
from lrc_ase.evaluation.evaluation_files import write_evaluation
from lrc_ase.evaluation.selection import Selection, select_frames

__all__ = ["Evaluation", "Selection", "check_comparable", "evaluate_frames", "select_frames", "write_evaluation"]
