"""Parts that all commands share: errors in one line, progress bars, structures to read and files to write.

Torch, ASE and the kernels are imported inside functions: a command that imports this module shows its help at once.
"""

from __future__ import annotations

import functools
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from typer.models import OptionInfo

from lrc_ase.files.printable import printable
from lrc_ase.files.terminal import new_console

if TYPE_CHECKING:
    from ase import Atoms

    from lrc_ase.calculator import LRCCalculator

__all__ = [
    "DebugOption",
    "DeviceOption",
    "DtypeOption",
    "FieldOption",
    "JsonOption",
    "PotentialArgument",
    "StartArgument",
    "StructureArgument",
    "ThreadsOption",
    "calculator",
    "console",
    "naming_options",
    "one_line_errors",
    "parse_repeat",
    "progress_bar",
    "read_structure",
    "refuse_existing",
    "say",
    "set_field",
    "set_threads",
    "starting_structure",
]

console = new_console()
INTERRUPTED = 130  # what a shell reports for a command ended by Ctrl-C
BROKEN_PIPE = 141  # what a shell reports for a command ended by SIGPIPE

PotentialArgument = Annotated[
    str, typer.Argument(help="Potential: a file, a run folder, or the name of a shipped one.", show_default=False)
]
_STRUCTURE = "Structure in any format of ASE; 'file.traj@5' takes a frame."
StructureArgument = Annotated[str, typer.Argument(help=_STRUCTURE, show_default=False)]
StartArgument = Annotated[
    str | None,
    typer.Argument(help=f"{_STRUCTURE} If not given, the one of a shipped potential.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for other programs instead of text.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
DeviceOption = Annotated[str, typer.Option(help="Device of torch: cpu, cuda, cuda:1.")]
DtypeOption = Annotated[str, typer.Option(help="Precision: float64, or float32 for speed.")]
FieldOption = Annotated[
    tuple[float, float, float] | None,
    typer.Option(
        "--field", metavar="EX EY EZ", help="Electric field, V/Angstrom; if not given, that of the structure's file."
    ),
]
ThreadsOption = Annotated[int | None, typer.Option(help="Threads on the CPU; torch's choice if not given.", min=1)]

Command = TypeVar("Command", bound=Callable[..., None])


def one_line_errors(command: Command) -> Command:
    """Decorate a command to end an error with one line and a non-zero exit code.

    Arguments of our functions that a message names in backticks are shown as the options of the command. With
    ``--debug`` errors keep their traceback.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool = False, **kwargs: Any) -> None:
        try:
            with warnings.catch_warnings():
                if not debug:
                    _show_warnings_of_ours()
                _keep_freed_memory()
                _replace_letters_without_code()
                command(*args, debug=debug, **kwargs)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except BrokenPipeError:  # the reader, such as `head`, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes
            raise typer.Exit(BROKEN_PIPE) from None
        except Exception as error:
            if _is_interruption(error):
                say(str(error), to_stderr=True)
                raise typer.Exit(INTERRUPTED) from None
            if debug:
                raise
            if _is_expected(error):
                say(f"Error: {naming_options(_message(error), command)}", to_stderr=True)
            else:
                say(
                    f"Error: {type(error).__name__}: {_message(error)} (unexpected: --debug shows where)",
                    to_stderr=True,
                )
            raise typer.Exit(1) from None

    return wrapped  # type: ignore[return-value]


def _replace_letters_without_code() -> None:
    """Print a question mark for a letter that the terminal's encoding lacks, such as that of Angstrom in ASCII.

    Python raises an error by default, which would end a training at its first table.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")


def _keep_freed_memory() -> None:
    """Set the allocator up; here and not in the group, whose callback runs before a command shows its help."""
    from lrc_ase.layer.memory import keep_freed_memory

    keep_freed_memory()


def _show_warnings_of_ours() -> None:
    """Show warnings that `lrc_ase` means for users, one line each, and no others."""
    warnings.simplefilter("ignore")
    warnings.filterwarnings("always", category=UserWarning, module=r"lrc_ase(\.|$)")
    # `read_structure` has doubted the charge of a structure already, and named its file
    warnings.filterwarnings("ignore", module=r"lrc_ase\.structures\.charge$")
    warnings.showwarning = lambda message, *_, **__: say(f"Warning: {message}", to_stderr=True)


# errors that a user can act on; any other is a fault of ours and says so
_EXPECTED = (
    ("ase.calculators.calculator", "CalculatorError"),
    ("lrc_ase.simulation.dynamics", "SimulationStopped"),
    ("lrc_ase.simulation.relaxation", "RelaxationNotConverged"),
)
_INTERRUPTIONS = (("lrc_ase.training.interruption", "TrainingInterrupted"),)


def _is_interruption(error: Exception) -> bool:
    """Return True for an error that stands for Ctrl-C or SIGTERM."""
    return isinstance(error, _loaded(_INTERRUPTIONS))


def _is_expected(error: Exception) -> bool:
    """Return True for an error that a user can act on."""
    return isinstance(error, (ValueError, OSError, NotImplementedError, *_loaded(_EXPECTED)))


def _loaded(classes: Iterable[tuple[str, str]]) -> tuple[type[BaseException], ...]:
    """Return those of the `classes`, pairs of module and name, whose modules are loaded.

    A module that is not loaded cannot have raised anything, and importing it would take long.
    """
    return tuple(getattr(sys.modules[module], name) for module, name in classes if module in sys.modules)


def _message(error: BaseException) -> str:
    """Return the text of an error, or its class if it has none."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def naming_options(message: str, command: Callable[..., None]) -> str:
    """Return a message with names of options of the command, such as --temperature, for arguments in backticks."""
    options = {
        name: next((each for each in info.param_decls or () if each.startswith("--")), f"--{name.replace('_', '-')}")
        for name, hint in get_type_hints(command, include_extras=True).items()
        for info in getattr(hint, "__metadata__", ())
        if isinstance(info, OptionInfo)
    }
    return re.sub(r"`(\w+)`", lambda match: options.get(match[1], match[0]), message)


def say(text: str, *, to_stderr: bool = False) -> None:
    """Print lines that may hold text from files: unwrapped, without markup, escape codes shown instead of obeyed."""
    print("\n".join(printable(line) for line in text.split("\n")), file=sys.stderr if to_stderr else sys.stdout)


def progress_bar() -> Progress:
    """Return a bar with elapsed and remaining time; the field `status` of a task shows more."""
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


def set_field(atoms: Atoms, field: tuple[float, float, float] | None) -> str:
    """Write the field of the command line, unless None, to `Atoms.info`; return the field of `atoms` for a heading.

    The text is empty for no field. ValueError refuses a field that is not finite or too strong.
    """
    from lrc_ase.structures.electric_field import FIELD_NAME, as_field, external_field

    if field is not None:
        atoms.info[FIELD_NAME] = as_field(field, "--field")
    present = external_field(atoms)
    if present is None or not present.any():
        return ""
    return f"field {' '.join(f'{component:g}' for component in present)} V/Angstrom"


def starting_structure(structure: str | None, potential: str, repeat: tuple[int, int, int] | None = None) -> Atoms:
    """Read the structure of the command line, or without one the structure that a shipped potential brings along."""
    from lrc_ase.files.pretrained import start_file

    if structure is not None:
        return read_structure(structure, repeat)
    start = start_file(potential)
    if start is None:
        raise ValueError(f"no structure is given, and {potential} brings none along: name a file after the potential")
    return read_structure(str(start), repeat)


def read_structure(path: str, repeat: tuple[int, int, int] | None = None) -> Atoms:
    """Read one structure in any format of ASE, the last frame unless ``@index`` says otherwise.

    `repeat` multiplies the structure along its cell vectors, and its total charge with it. Results stored in the file
    are dropped, as the potential did not compute them.

    Raises
    ------
    FileNotFoundError, ValueError
        The file does not exist, ASE cannot read it, it holds no atoms or several frames were requested, or its total
        charge is no number.
    """
    import ase.io
    from ase.io.formats import UnknownFileTypeError

    from lrc_ase.structures.charge import charge_doubt, repeated, total_charge

    # a name that contains '@' is a file first, and a file with an index only if there is no such file
    file = path if os.path.exists(path) else path.rpartition("@")[0] or path
    if not os.path.exists(file):
        raise FileNotFoundError(f"{file} does not exist")
    try:
        atoms = ase.io.read(path, do_not_split_by_at_sign=file == path)
    except UnknownFileTypeError as error:
        raise ValueError(f"{file}: ASE does not know this format") from error
    except OSError:
        raise
    except Exception as error:  # readers of ASE raise whatever their parser meets
        reason = " ".join(str(error).split())
        raise ValueError(f"{file}: ASE cannot read it ({type(error).__name__}: {reason})") from error
    if isinstance(atoms, list):
        raise ValueError(f"{path} names several frames, expected one")
    if len(atoms) == 0:
        raise ValueError(f"{path} holds no atoms")
    try:
        total_charge(atoms)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if doubt := charge_doubt(atoms):
        warnings.warn(f"{path}: {doubt}", stacklevel=1)
    if repeat is not None:
        atoms = repeated(atoms, repeat)
    atoms.calc = None
    return atoms


def parse_repeat(text: str | None) -> tuple[int, int, int] | None:
    """Read three repetitions, ``2,1,1`` or ``2 1 1``; ``2`` stands for ``2,2,2``.

    >>> parse_repeat("2,1,1"), parse_repeat("2 1 1"), parse_repeat("3")
    ((2, 1, 1), (2, 1, 1), (3, 3, 3))
    """
    if text is None:
        return None
    words = text.replace(",", " ").split()
    if len(words) == 1:
        words *= 3
    if len(words) != 3 or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ValueError(f"--repeat must be three numbers of at least 1, such as 2,1,1, got {text}")
    first, second, third = map(int, words)
    return first, second, third


def calculator(potential: str, device: str, dtype: str) -> LRCCalculator:
    """Return the calculator of a potential."""
    from lrc_ase.calculator import LRCCalculator

    return LRCCalculator(potential, device=device, dtype=dtype)


def set_threads(threads: int | None) -> None:
    """Set the number of threads of torch for the whole process; None leaves torch's choice."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise FileExistsError if `path` may not be replaced, FileNotFoundError if its folder does not exist."""
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already: give another name, or --overwrite")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist")
