"""Teachers: options, building, and every reason why a calculator cannot teach."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones
from pydantic import ValidationError

from lrc_ase.learning import Labelled, TeacherError, TeacherPool, TeacherSettings, make_calculator
from lrc_ase.learning.teacher import parse_options


def test_options_of_the_command_line_are_yaml():
    options = parse_options(["method=GFN1-xTB", "accuracy=0.1", "kpts=[2, 2, 1]", "spin=true", "tol=1e-6", "a=x=y"])
    assert options == {"method": "GFN1-xTB", "accuracy": 0.1, "kpts": [2, 2, 1], "spin": True, "tol": 1e-6, "a": "x=y"}
    for text, message in [
        ("method", "needs NAME=VALUE"),
        ("=5", "needs NAME=VALUE"),
        ("a=[1", "no YAML value"),
    ]:
        with pytest.raises(TeacherError, match=message):
            parse_options([text])
    with pytest.raises(TeacherError, match="'a' is given twice"):
        parse_options(["a=1", "a=2"])


@pytest.mark.parametrize("name", ["GFN2-xTB", "gfn2-xtb"])
def test_a_method_names_its_calculator(name):
    settings = TeacherSettings(calculator=name, options={"accuracy": 0.1})
    assert settings.calculator == "tblite.ase:TBLite"
    assert settings.options == {"method": "GFN2-xTB", "verbosity": 0, "accuracy": 0.1}
    loud = TeacherSettings(calculator="GFN1-xTB", options={"verbosity": 2})
    assert loud.options == {"method": "GFN1-xTB", "verbosity": 2}
    assert TeacherSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize("name", ["tblite.ase", "GFN3-xTB", "EMT", "a b:C", "module:Class.x", "teacher.yaml", ""])
def test_names_that_are_no_teacher(name):
    with pytest.raises(ValidationError, match="expected 'module:Class'"):
        TeacherSettings(calculator=name)


@pytest.mark.parametrize(
    "values",
    [{"processes": 0}, {"threads": 0}, {"timeout": 0}, {"timeout": np.inf}, {"retries": -1}, {"command": "rm"}],
)
def test_settings_are_checked(values):
    with pytest.raises(ValidationError):
        TeacherSettings(calculator="ase.calculators.emt:EMT", **values)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nowhere_at_all.ase:Best", {}, "there is no module 'nowhere_at_all': install it into this environment"),
        ("ase.calculators.emt:EMTT", {}, "has no 'EMTT'; did you mean 'EMT'"),
        ("ase.calculators.emt:beta", {}, "'beta' is no class or function but float"),
        ("ase.calculators.tip3p:TIP3P", {"colour": "red"}, "TIP3P fails with TypeError.*colour.*options: colour='red'"),
        ("ase.build:molecule", {"name": "H2O"}, "gives an object of type Atoms, expected a calculator"),
        ("ase.calculators.test:FreeElectrons", {}, "FreeElectrons computes no forces"),
    ],
)
def test_calculators_that_cannot_teach(name, options, message):
    with pytest.raises(TeacherError, match=message):
        make_calculator(TeacherSettings(calculator=name, options=options))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", r"needs a function calculator\(\)"),
        ("raise OSError('no license')", "executing the file fails with OSError: no license"),
        ("def calculator(): return None", "gives nothing"),
        ("from ase.calculators.emt import EMT\ndef calculator(): return EMT", "gives the class EMT itself"),
        ("def calculator(): return 1 / 0", r"calculator\(\) fails with ZeroDivisionError"),
    ],
)
def test_files_that_are_no_teacher(tmp_path, text, message):
    path = tmp_path / "teacher.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TeacherError, match=message):
        make_calculator(TeacherSettings(calculator=str(path)))


def test_errors_of_building_arrive_before_anything_is_labelled(tmp_path):
    settings = TeacherSettings(calculator="ase.calculators.emt:EMTT")
    with pytest.raises(TeacherError, match="did you mean 'EMT'"), TeacherPool(settings, tmp_path / "scratch"):
        pass


def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(TeacherError, match="there is no such file"):
        make_calculator(TeacherSettings(calculator=str(tmp_path / "teacher.py")))


def test_options_reach_the_calculator(tmp_path):
    settings = TeacherSettings(calculator="ase.calculators.lj:LennardJones", options={"epsilon": 0.02, "sigma": 2.5})
    assert make_calculator(settings).parameters.epsilon == 0.02
    atoms = bulk("Al", cubic=True)
    with TeacherPool(settings, tmp_path) as pool:
        [result] = pool.label([atoms])
    atoms.calc = LennardJones(epsilon=0.02, sigma=2.5)
    assert result.atoms.get_potential_energy() == atoms.get_potential_energy()


def test_files_import_their_neighbors_and_find_paths_of_the_user(tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text("from ase.calculators.emt import EMT", encoding="utf-8")
    (tmp_path / "weights.txt").write_text("5", encoding="utf-8")
    text = "import beside\ndef calculator(weights):\n    assert open(weights).read() == '5'\n    return beside.EMT()\n"
    (tmp_path / "teacher.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    settings = TeacherSettings(calculator="teacher.py", options={"weights": "weights.txt"})
    with TeacherPool(settings, tmp_path / "scratch") as pool:
        [result] = pool.label([bulk("Al")])
    assert isinstance(result, Labelled)
