"""``lrc-ase compile``: the kernels of potentials, before they are needed."""

from __future__ import annotations

from typing import Annotated

import typer

from lrc_ase.cli.console import DebugOption, one_line_errors, say

__all__ = ["compile"]


@one_line_errors
def compile(
    potentials: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="POTENTIAL",
            help="Files, run folders, or names of shipped potentials; the presets if not given.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="Precision, float64 or float32; may be repeated. Both if not given.", show_default=False),
    ] = None,
    training: Annotated[bool, typer.Option("--training", help="Also compile the kernels of trainings.")] = False,
    debug: DebugOption = False,
) -> None:
    """Compile the kernels of potentials, so that later runs start at once.

    The first evaluation on a machine compiles for half a minute. Kernels are kept on disk; NUMBA_CACHE_DIR names the
    folder. Jobs that share the folder load kernels instead of compiling them.

    Example: lrc-ase compile run --training
    """
    from lrc_ase.compiled.compilation_time import compilation_timed
    from lrc_ase.engines.ahead_of_time import compile_kernels
    from lrc_ase.files.potential_file import load_potential
    from lrc_ase.models.ensemble import members_of
    from lrc_ase.models.precision import floating_type
    from lrc_ase.training.presets import PRESETS
    from lrc_ase.training.untrained import preset_model

    precisions = [floating_type(each) for each in dtype or ("float64", "float32")]
    if potentials:
        models = {name: members_of(load_potential(name).model)[0] for name in potentials}
    else:
        models = {name: preset_model(name) for name in PRESETS}
    for name, model in models.items():
        for precision in precisions:
            with compilation_timed() as clock:
                compile_kernels(model.to(precision), training=training)
            label = f"{name}, {str(precision).removeprefix('torch.')}"
            took = f"compiled in {clock.seconds:.1f} s" if clock.seconds > 0 else "nothing left to compile"
            say(f"{label}: {took}")
