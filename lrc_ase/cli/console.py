"""What all commands share: errors in one line, progress bars, structures read and files written with care."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import ase.io
import torch
import typer
from ase import Atoms
from ase.calculators.calculator import CalculatorError
from ase.io.formats import UnknownFileTypeError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lrc_ase.calculator import LRCCalculator
from lrc_ase.compiled.kernel_cache import KernelCacheWarning
from lrc_ase.files.errors import ShadowedNameWarning
from lrc_ase.simulation import RelaxationNotConverged, SimulationStopped
from lrc_ase.structures.charge import set_total_charge, total_charge
from lrc_ase.structures.domain import ExtrapolationWarning
from lrc_ase.training import TrainingInterrupted

__all__ = [
    "DebugOption",
    "DeviceOption",
    "DtypeOption",
    "PotentialArgument",
    "StructureArgument",
    "ThreadsOption",
    "calculator",
    "console",
    "one_line_errors",
    "progress_bar",
    "read_structure",
    "refuse_existing",
    "set_threads",
]

console = Console()
INTERRUPTED = 130  # what a shell reports for a command ended by Ctrl-C
# errors that a user can act on; any other is a fault of ours and says so
EXPECTED_ERRORS = (
    ValueError,
    OSError,
    CalculatorError,
    SimulationStopped,
    RelaxationNotConverged,
    NotImplementedError,
)

PotentialArgument = Annotated[
    str, typer.Argument(help="Potential: a file, a run folder, or the name of a shipped one.", show_default=False)
]
StructureArgument = Annotated[
    str, typer.Argument(help="Structure in any format of ASE; 'file.traj@5' takes a frame.", show_default=False)
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
DeviceOption = Annotated[str, typer.Option(help="Device of torch: cpu, cuda, cuda:1.")]
DtypeOption = Annotated[str, typer.Option(help="float64, or float32 for speed.")]
ThreadsOption = Annotated[
    int | None, typer.Option(help="Threads of torch on the CPU; its own choice if not given.", min=1)
]

Command = TypeVar("Command", bound=Callable[..., None])


def one_line_errors(command: Command) -> Command:
    """Make a command end with one clear line and a non-zero exit code; with ``--debug`` errors keep their traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool = False, **kwargs: Any) -> None:
        try:
            with warnings.catch_warnings():
                if not debug:
                    warnings.simplefilter("ignore")
                    for shown in (ExtrapolationWarning, KernelCacheWarning, ShadowedNameWarning):
                        warnings.simplefilter("always", shown)
                    warnings.showwarning = lambda message, *_, **__: _say(f"Warning: {message}")
                command(*args, debug=debug, **kwargs)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except TrainingInterrupted as error:
            _say(str(error))
            raise typer.Exit(INTERRUPTED) from None
        except EXPECTED_ERRORS as error:
            if debug:
                raise
            _say(f"Error: {_message(error)}")
            raise typer.Exit(1) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:
            if debug:
                raise
            _say(f"Error: {type(error).__name__}: {_message(error)} (not foreseen: --debug shows where)")
            raise typer.Exit(1) from None

    return wrapped  # type: ignore[return-value]


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _say(text: str) -> None:
    # plain print: a long path must not be wrapped, nor brackets read as markup
    print(text, file=sys.stderr)


def progress_bar() -> Progress:
    """Bar with elapsed and remaining time; set the field `status` to show more."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def read_structure(path: str, repeat: tuple[int, int, int] | None = None) -> Atoms:
    """One structure from a file in any format of ASE, the last frame unless ``@index`` says otherwise."""
    file = path if os.path.exists(path) else path.rpartition("@")[0] or path
    if not os.path.exists(file):
        raise FileNotFoundError(f"{file} does not exist")
    try:
        atoms = ase.io.read(path)
    except UnknownFileTypeError as error:
        raise ValueError(f"{file}: ASE does not know this format") from error
    except OSError:
        raise
    except Exception as error:  # readers of ASE raise whatever their parser meets
        raise ValueError(f"{file}: ASE cannot read it ({type(error).__name__}: {error})") from error
    if isinstance(atoms, list):
        raise ValueError(f"{path} names several frames, expected one")
    if len(atoms) == 0:
        raise ValueError(f"{path} holds no atoms")
    if repeat is not None:
        if min(repeat) < 1:
            raise ValueError(f"--repeat must be three numbers of at least 1, got {' '.join(map(str, repeat))}")
        charge = total_charge(atoms)
        atoms = atoms.repeat(repeat)
        if charge:
            set_total_charge(atoms, charge * repeat[0] * repeat[1] * repeat[2])
    atoms.calc = None  # labels of the file; they are not the potential's
    return atoms


def calculator(potential: str, device: str, dtype: str) -> LRCCalculator:
    """Return the calculator of a potential."""
    return LRCCalculator(potential, device=device, dtype=dtype)


def set_threads(threads: int | None) -> None:
    """Use so many threads; a command owns its process, so that it may set them."""
    if threads is not None:
        torch.set_num_threads(threads)


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise when `path` exists, unless it may be replaced."""
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already: give another name, or --overwrite")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist")
