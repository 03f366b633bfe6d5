"""Sampling with a progress bar, for ``lrc-ase sample`` and ``lrc-ase train --pretrain``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lrc_ase.cli.console import progress_bar, say
from lrc_ase.files.counted import counted
from lrc_ase.learning.sampling import SampleSettings, SampleSummary, sample

__all__ = ["sample_visibly"]

_SHOWN_FAILURES = 3


def sample_visibly(
    starts: Sequence[str], settings: SampleSettings, output: Path, *, quiet: bool = False
) -> SampleSummary:
    """Sample frames as `lrc_ase.learning.sample` does, and show progress and runs that failed."""
    with progress_bar() as bar:
        task = bar.add_task("frames", total=settings.count, status="", visible=not quiet)
        summary = sample(
            starts, settings, output, report=lambda done, total: bar.update(task, completed=done, total=total)
        )
    if quiet:
        return summary
    for reason in summary.failures[:_SHOWN_FAILURES]:
        say(f"a run ended early at {reason}")
    if len(summary.failures) > _SHOWN_FAILURES:
        say(f"{len(summary.failures)} runs ended early in all")
    if not summary.is_complete:
        say(f"the time is over after {summary.n_frames} of {summary.n_wanted} frames")
    say(f"  {counted(summary.n_frames, 'frame')} in {output}, {summary.teacher_seconds:.0f} s of the teacher")
    return summary
