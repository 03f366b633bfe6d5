"""Keywords that other calculators would know, and devices that are not there."""

import ase.io
import pytest
import torch
from click.testing import Result
from structures import potential, rattled_crystal, water
from typer.testing import CliRunner

import lrc_ase
from lrc_ase import LRCCalculator, load_potential, save_potential
from lrc_ase.cli import app
from lrc_ase.evaluation import evaluate_frames, select_frames
from lrc_ase.models.devices import usable_device

CHARGE = r"no keyword '{}': the charge belongs to the structure, set atoms.info\[\"charge\"\]"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("potential") / "potential.safetensors"
    save_potential(path, potential())
    return path


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("charge", 1, CHARGE.format("charge")),
        ("total_charge", 1, CHARGE.format("total_charge")),
        ("external_field", 1, r"no keyword .external_field.: say electric_field=\(0, 0, 0.1\), in V/Angstrom"),
        ("spin", 1, "no keyword 'spin': its potentials know no spin"),
        ("n_threads", 2, "no keyword 'n_threads': set threads by torch.set_num_threads"),
        ("devise", "cuda", r"no keyword 'devise'; did you mean 'device'\?"),
        ("skinn", 3.0, r"no keyword 'skinn'; did you mean 'skin'\?"),
        (
            "cutoff",
            9.0,
            r"no keyword 'cutoff'; it knows device, dtype, default_dtype, skin, electric_field, label",
        ),
    ],
)
def test_unknown_keywords_are_errors(keyword, value, message, file):
    for make in (LRCCalculator, lrc_ase.load):
        with pytest.raises(TypeError, match=message):
            make(file, **{keyword: value})
    with pytest.raises(TypeError, match=message):
        LRCCalculator(file).set(**{keyword: value})


def test_what_is_no_potential_is_named(file, tmp_path):
    for strange in (None, 3, water()):
        with pytest.raises(TypeError, match=r"expected a potential file, a run folder or the name of a .*, got "):
            lrc_ase.load(strange)
    atoms, message = water(), "`potential` must be a Potential, got .*: `load_potential` reads one"
    for call in (
        lambda: save_potential(tmp_path / "x.safetensors", file),
        lambda: evaluate_frames(file, [atoms]),
        lambda: select_frames(LRCCalculator(file), [atoms], 1),
    ):
        with pytest.raises(TypeError, match=message):
            call()
    with pytest.raises(TypeError, match="`graph` must be a Graph, got Atoms: `LRCCalculator` evaluates atoms of ASE"):
        lrc_ase.evaluate(potential().model, atoms)
    for strange in (file, [atoms], potential()):
        with pytest.raises(TypeError, match=r"`model` must be a model, got .*labelled frames by `.*evaluate_frames`"):
            lrc_ase.evaluate(strange, [atoms])


def test_ases_own_keywords_are_accepted(file, tmp_path):
    atoms = water()
    calculator = LRCCalculator(file, label="water", directory=str(tmp_path), atoms=atoms)
    assert atoms.calc is calculator
    assert calculator.directory == str(tmp_path)


def test_default_dtype_is_another_name_of_dtype(file):
    assert next(LRCCalculator(file, default_dtype="float32").model.parameters()).dtype == torch.float32
    assert next(LRCCalculator(file).model.parameters()).dtype == torch.float64
    LRCCalculator(file, dtype=torch.float32, default_dtype="float32")
    with pytest.raises(ValueError, match="`dtype` float64 and `default_dtype` float32 differ: give one of them"):
        LRCCalculator(file, dtype="float64", default_dtype="float32")
    with pytest.raises(ValueError, match="must be float32 or float64"):
        LRCCalculator(file, default_dtype="half")
    with pytest.raises(ValueError, match="must be float32 or float64"):
        LRCCalculator(file, dtype=None)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "torch knows no device 'gpu'; usable here: cpu"),
        ("CPU", "torch knows no device 'CPU'; usable here: cpu"),
        ("", "torch knows no device ''; usable here: cpu"),
        (None, "torch knows no device None; usable here: cpu"),
        ("meta", r"device 'meta' cannot be used here; usable: cpu.* \(.*meta"),
        ("cuda:99", "device 'cuda:99' cannot be used here; usable: cpu"),
    ],
)
def test_devices_that_are_not_there_are_one_line(device, message, file):
    for ask in (
        lambda: usable_device(device),
        lambda: LRCCalculator(file, device=device),
        lambda: LRCCalculator(potential(), device=device),
        lambda: load_potential(file, device=device),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            ask()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "command",
    [
        "md {potential} {frames} -t 300 -n 2 -o out.traj",
        "relax {potential} {frames} -o out.extxyz",
        "evaluate {potential} {frames}",
        "select {potential} {frames} -o out.extxyz",
        "serve {potential} {frames}",
    ],
    ids=lambda command: command.split()[0],
)
def test_commands_name_a_device_that_is_not_there(command, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ase.io.write("frames.extxyz", rattled_crystal())
    words = command.format(potential=file, frames="frames.extxyz").split()
    result: Result = CliRunner().invoke(app, [*words, "--device", "gpu"])
    assert result.exit_code == 1
    assert " ".join(result.output.split()).endswith("torch knows no device 'gpu'; usable here: cpu")
