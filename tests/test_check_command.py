"""`lrc-ase check`: files, exit status, resumption, and the way of each option."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk
from structures import potential as untrained_potential
from typer.testing import CliRunner

import lrc_ase.checks
from lrc_ase import save_potential
from lrc_ase.checks import CheckResult, CheckSettings, Curve, Figure, Quantity, load_report
from lrc_ase.checks.plan import DynamicsPlan
from lrc_ase.checks.suite import CheckReport, SystemResults
from lrc_ase.cli import app
from lrc_ase.report.check_report import report_checks


def lrc_ase_check(*arguments) -> tuple[int, str]:
    finished = CliRunner().invoke(app, ["check", *map(str, arguments)])
    if finished.exception is not None and not isinstance(finished.exception, SystemExit):
        raise finished.exception
    return finished.exit_code, finished.output


@pytest.fixture(scope="module")
def crystal(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("crystal") / "salt.cif"
    ase.io.write(path, bulk("NaCl", "rocksalt", a=5.6, cubic=True))
    return path


def test_results_page_and_summary_are_written(crystal, tmp_path):
    folder = tmp_path / "out"
    code, output = lrc_ase_check(
        "nacl", "--system", crystal, "--only", "invariances", "--only", "finite differences", "-o", folder
    )
    assert code == 0, output
    assert "2 passed, 0 failed, 0 informative, 0 not applicable" in output
    assert all(len(line) < 81 for line in output.splitlines() if str(tmp_path) not in line)
    summary = json.loads((folder / "summary.json").read_text())
    differences = summary["systems"]["salt"]["checks"]["finite differences"]
    assert differences["verdict"] == "passed"
    assert differences["quantities"]["largest error of forces"]["unit"] == "eV/Angstrom"
    assert summary["systems"]["salt"]["description"] == "crystal, Cl4Na4, 8 atoms, 300 K"
    page = (folder / "report.html").read_text()
    assert "Checks of nacl" in page
    assert 'class="good">passed' in page
    assert load_report(folder).to_json() == json.loads((folder / "results.json").read_text())


def test_a_failed_check_is_status_1(crystal, tmp_path, monkeypatch):
    def instead(*_, report, **options):
        outcome = CheckResult.judged("dimers", "Sentence.", [Quantity("fall", 2.0, "eV", at_most=0.05)])
        report("potential", "dimers", outcome, "")
        return CheckReport("nacl", {}, [SystemResults("potential", "", [outcome])])

    monkeypatch.setattr(lrc_ase.checks, "check", instead)
    code, output = lrc_ase_check("nacl", "--system", crystal, "-o", tmp_path)
    assert code == 1, output
    assert "failed         dimers" in output
    assert "      fall is 2 eV, limit at most 0.05. Sentence." in output
    assert (tmp_path / "report.html").exists()


def test_the_length_of_the_runs_is_a_line_ahead_of_them(crystal, tmp_path, monkeypatch):
    def instead(*_, announce, **options):
        announce(DynamicsPlan(295_000, 216, 0.02))
        return CheckReport("nacl", {})

    monkeypatch.setattr(lrc_ase.checks, "check", instead)
    for words, line in (
        ([], "  295000 steps of 216 atoms ahead, about 1 h 38 min; --quick runs far less\n"),
        (["--quick"], "  295000 steps of 216 atoms ahead, about 1 h 38 min\n"),
    ):
        code, output = lrc_ase_check("nacl", "-s", crystal, "-o", tmp_path, *words)
        assert (code, line in output) == (0, True), output


def test_usage_errors_are_status_2(crystal, tmp_path):
    folder, untrained = tmp_path / "out", tmp_path / "untrained.safetensors"
    save_potential(untrained, untrained_potential())
    assert lrc_ase_check("nacl", "-s", crystal, "--only", "finite differences", "-o", folder)[0] == 0
    for arguments, message in (
        (["nacl", "--suite", "solid"], "--suite must be one of liquid, crystal, molecule, all, got 'solid'"),
        (["nacl", "--only", "dimer"], "no check is named 'dimer'; there are: dimers, "),
        ([untrained], "brings no structure along: give --system"),
        (["no-such-potential", "-s", crystal], "no-such-potential"),
        (["nacl", "-s", "absent.cif"], "absent.cif does not exist"),
        (["nacl", "-s", crystal, "--timestep", -1], "--timestep must be positive, got -1"),
        (["nacl", "-s", crystal, "-o", folder], "holds results: --resume goes on, --overwrite replaces them"),
        (["nacl", "-s", crystal, "-o", folder, "--resume", "--overwrite"], "exclude each other"),
        (["nacl", "-s", crystal, "-o", folder, "--resume", "--quick"], "holds results of other settings (quick)"),
    ):
        code, output = lrc_ase_check(*arguments, *([] if "-o" in arguments else ["-o", tmp_path / "new"]))
        assert (code, message in output) == (2, True), output
        assert output.startswith("Error: ")


def test_resume_keeps_results_and_makes_the_others(crystal, tmp_path):
    arguments = ["nacl", "-s", crystal, "-o", tmp_path]
    assert lrc_ase_check(*arguments, "--only", "finite differences")[0] == 0
    before = load_report(tmp_path).systems[0].results[0]
    code, output = lrc_ase_check(*arguments, "--only", "invariances", "--resume")
    assert code == 0, output
    kept, added = load_report(tmp_path).systems[0].results
    assert (kept, kept.seconds) == (before, before.seconds)
    assert added.name == "invariances"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--quick"], {"settings": CheckSettings(quick=True)}),
        (["--temperature", "450"], {"settings": CheckSettings(temperature=450.0)}),
        (["--timestep", "0.25"], {"settings": CheckSettings(timestep=0.25)}),
        (["--seed", "4"], {"settings": CheckSettings(seed=4)}),
        (["--suite", "crystal"], {"suite": "crystal"}),
        (["--only", "dimers"], {"only": ["dimers"]}),
        (["--resume"], {"resume": True}),
        ([], {"resume": False, "suite": "all", "only": None, "reference": None, "labels": [], "name": "nacl"}),
    ],
)
def test_options_arrive(words, expected, crystal, tmp_path, monkeypatch):
    received = {}

    def instead(calculator, systems, **options):
        received.update(options, calculator=calculator, systems=systems)
        return CheckReport("nacl", {})

    monkeypatch.setattr(lrc_ase.checks, "check", instead)
    code, output = lrc_ase_check("nacl", "-s", crystal, "-s", crystal, "-o", tmp_path / "new", *words)
    assert code == 0, output
    assert {name: received[name] for name in expected} == expected
    assert [atoms.info["name"] for atoms in received["systems"]] == ["salt", "salt"]
    assert received["calculator"].fingerprint["precision"] == "float64"
    assert received["single"].fingerprint["precision"] == "float32"
    assert received["folder"] == tmp_path / "new"


def test_reference_and_labels_arrive(crystal, tmp_path, monkeypatch):
    received = {}
    monkeypatch.setattr(
        lrc_ase.checks, "check", lambda calculator, systems, **options: received.update(options) or CheckReport("x", {})
    )
    frames = bulk("NaCl", "rocksalt", a=5.6)
    frames.info["energy"] = -3.0
    ase.io.write(tmp_path / "labels.extxyz", [frames, frames])
    reference = tmp_path / "reference.safetensors"
    save_potential(reference, untrained_potential())
    code, output = lrc_ase_check(
        "nacl", "-s", crystal, "--labels", tmp_path / "labels.extxyz", "--reference", reference, "-o", tmp_path / "new"
    )
    assert code == 0, output
    assert len(received["labels"]) == 2
    assert received["reference"].potential.settings.elements == ("H", "O", "Na", "Cl")


def test_a_reference_is_a_calculator_of_ase_too(crystal, tmp_path, monkeypatch):
    received = {}
    monkeypatch.setattr(
        lrc_ase.checks, "check", lambda calculator, systems, **options: received.update(options) or CheckReport("x", {})
    )
    arguments = ["nacl", "-s", crystal, "-o", tmp_path / "new"]
    lj = ["--reference", "ase.calculators.lj:LennardJones", "--reference-option", "sigma=2.5"]
    code, output = lrc_ase_check(*arguments, *lj)
    assert code == 0, output
    assert received["reference"].parameters["sigma"] == 2.5
    pytest.importorskip("tblite")
    code, output = lrc_ase_check(*arguments, "--reference", "GFN2-xTB", "--overwrite")
    assert code == 0, output
    assert received["reference"].parameters["method"] == "GFN2-xTB"
    for words, message in (
        (
            ["--reference", "no-such"],
            "--reference no-such is no potential, and no calculator of ASE named as GFN2-xTB, module:Class",
        ),
        (
            ["--reference", "nacl", "--reference-option", "sigma=2"],
            "--reference-option belongs to a --reference that is a calculator",
        ),
    ):
        code, output = lrc_ase_check(*arguments, *words, "--overwrite")
        assert (code, message in output) == (2, True), output


def test_a_page_shows_numbers_with_units_limits_and_references(tmp_path):
    quantities = [
        Quantity("bulk modulus", 24.0, "GPa"),
        Quantity("drift", 0.02, "eV/atom/ns", error=0.001, at_most=0.01),
    ]
    figure = Figure("Energies", "Volume (Angstrom^3)", "Energy (eV)", (Curve.of("a", [1, 2], [3, 4]),))
    outcome = CheckResult.judged("test", "A sentence.", quantities, [figure])
    reference = CheckResult.judged("test", "", [Quantity("bulk modulus", 25.5, "GPa")])
    report = CheckReport("mine", {"quick": True}, [SystemResults("salt", "crystal", [outcome.beside(reference)])])
    page = report_checks(report, tmp_path).read_text()
    for text in (
        "24 GPa",
        "25.5",
        "0.0200 ± 0.0010 eV/atom/ns",
        "at most 0.01",
        'class="bad">beyond',
        "0 passed, 1 failed",
    ):
        assert text in page
    tables = (tmp_path / "summary.md").read_text()
    assert "| test | failed | bulk modulus 24 GPa; drift 0.0200 ± 0.0010 eV/atom/ns |" in tables
    assert (tmp_path / "salt-energies.png").read_bytes().startswith(b"\x89PNG")


def test_systems_whose_names_differ_in_case_alone_have_pictures_of_their_own(tmp_path):
    figure = Figure("energies", "x", "y", (Curve.of("energy", [0, 1], [1, 2]),))
    outcome = CheckResult.judged("test", "A sentence.", [Quantity("a", 1.0)], [figure])
    systems = [SystemResults(name, "crystal", [outcome]) for name in ("Salt", "salt")]
    report_checks(CheckReport("mine", {}, systems), tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {"salt-energies.png", "salt-2-energies.png"}
