"""Structures named on the command line: frames, wildcard characters, repetitions and their total charge."""

from __future__ import annotations

import io

import pytest
from ase.build import bulk
from ase.io import write
from test_cli import folder, lrc_ase, potential

from lrc_ase.cli.console import parse_repeat, read_structure

__all__ = ["folder", "potential"]  # fixtures


def save(path, *frames):
    """Write frames to a file whose name ASE would split at '@'."""
    buffer = io.StringIO()
    write(buffer, list(frames), format="extxyz")
    path.write_text(buffer.getvalue())
    return str(path)


@pytest.mark.parametrize(("text", "charge"), [("1", 2), (" -0.5", -1), ("2.0", 4)])
def test_a_charge_written_as_text_is_multiplied_by_repeat(tmp_path, text, charge):
    atoms = bulk("Cu", cubic=True)
    atoms.info["charge"] = text
    repeated = read_structure(save(tmp_path / "s.extxyz", atoms), (2, 1, 1))
    assert float(repeated.info["charge"]) == charge
    assert len(repeated) == 8


@pytest.mark.parametrize("name", ["charge", "total_charge"])
def test_a_charge_is_multiplied_under_whatever_name_it_is_read(tmp_path, name):
    atoms = bulk("Cu", cubic=True)
    atoms.info[name] = -1
    repeated = read_structure(save(tmp_path / "s.extxyz", atoms), (3, 2, 1))
    assert [value for key, value in repeated.info.items() if "charge" in key] == [-6]


def test_a_charge_that_is_no_number_names_the_file(tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.info["charge"] = "cation"
    with pytest.raises(ValueError, match=r"s\.extxyz: .*cation"):
        read_structure(save(tmp_path / "s.extxyz", atoms))


@pytest.mark.parametrize(
    "name", ["plain.extxyz", "at@sign.extxyz", "a@0.extxyz", "br[1]acket.extxyz", "with space.extxyz"]
)
def test_frames_of_files_with_unusual_names(tmp_path, name):
    folder = tmp_path / "run@2:[3]"
    folder.mkdir()
    path = save(folder / name, bulk("Cu"), bulk("Cu", cubic=True))
    assert len(read_structure(path)) == 4
    assert len(read_structure(f"{path}@0")) == 1


def test_several_frames_are_refused(tmp_path):
    path = save(tmp_path / "s.extxyz", bulk("Cu"), bulk("Cu"))
    with pytest.raises(ValueError, match="names several frames, expected one"):
        read_structure(f"{path}@:")


@pytest.mark.parametrize("text", ["0,1,1", "2,1", "2 1 1 1", "a,b,c", "-1,1,1", "1.5,1,1", ""])
def test_other_repetitions_are_refused(text):
    with pytest.raises(ValueError, match="--repeat must be three numbers of at least 1"):
        parse_repeat(text)


def test_a_structure_that_looks_charged_is_doubted_once_with_its_file(potential, tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.set_initial_charges([1.0, 0.0, 0.0, 0.0])
    atoms.write(tmp_path / "s.traj")
    code, output = lrc_ase("md", potential, tmp_path / "s.traj", "-t", 300, "-n", 1, "-o", tmp_path / "md.traj")
    assert code == 0, output
    assert output.count("initial charges sum to +1 e") == output.count("s.traj: initial charges sum") == 1


@pytest.mark.parametrize("repeat", [["2,1,1"], ["2", "1", "1"]], ids=["commas", "spaces"])
def test_md_takes_repetitions_as_one_word_or_three(folder, potential, tmp_path, repeat):
    arguments = ["md", "--repeat", *repeat, potential, f"{folder}/frames.extxyz@0", "-t", 300, "-n", 1]
    code, output = lrc_ase(*arguments, "-o", tmp_path / "md.traj")
    assert code == 0, output
    assert "of 8 atoms" in output
