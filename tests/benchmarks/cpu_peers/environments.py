"""Make one virtual environment per program: python environments.py FOLDER [NAME ...] [--torch-index URL]."""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

from programs import INSTALL

CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def main() -> None:
    """Install what is named, or everything; a program that fails does not stop the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", choices=[[], *INSTALL], default=[])
    parser.add_argument("--torch-index", default=CPU_INDEX, help="index with builds of torch for CPUs")
    arguments = parser.parse_args()
    for name in arguments.names or INSTALL:
        venv.create(arguments.folder / name, with_pip=True)
        for requirement in INSTALL[name]:
            command = [str(arguments.folder / name / "bin" / "python"), "-m", "pip", "install", *requirement.split()]
            if requirement.startswith("torch=="):
                command += ["--index-url", arguments.torch_index]
            print(" ".join(command), flush=True)
            if subprocess.run(command).returncode:
                print(f"{name}: not installed", file=sys.stderr)
                break


if __name__ == "__main__":
    main()
