"""The package as it is installed: what a wheel, a source archive and an editable install hold."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import lrc_ase

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "conda" / "recipe.yaml"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
OFFLINE = ["--no-deps", "--no-build-isolation", "--quiet"]


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command away from the checkout and return what it prints."""
    finished = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def expected_files() -> set[str]:
    """Return the modules and data files that an installation must hold, as paths below site-packages."""
    library = {path.relative_to(ROOT).as_posix() for path in (ROOT / "lrc_ase").rglob("*.py")}
    oracles = {f"lrc_ase/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "potentials").rglob("*.py")}
    trained = {
        f"lrc_ase/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "potentials" / "trained").glob("*/*.*")
    }
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "lrc_ase").rglob("*.j2")}
    return library | oracles | trained | templates | {"lrc_ase/py.typed", "lrc_ase/potentials/py.typed"}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build a source archive from the checkout, and a wheel from that archive alone."""
    folder = tmp_path_factory.mktemp("dist")
    build = "import setuptools.build_meta as b, sys; print(b.build_sdist(sys.argv[1]))"
    run(sys.executable, "-c", build, folder, cwd=ROOT)
    (source,) = folder.glob("*.tar.gz")
    run(*PIP, "wheel", *OFFLINE, "--wheel-dir", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return source, wheel


@pytest.mark.slow
def test_wheel_of_the_source_archive_holds_the_package_and_nothing_else(archives):
    with zipfile.ZipFile(archives[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == expected_files()


@pytest.mark.slow
def test_source_archive_holds_the_package_once(archives):
    with tarfile.open(archives[0]) as archive:
        names = [name.split("/", 1)[1] for name in archive.getnames() if name.count("/")]
    assert expected_files() <= set(names)
    assert not [name for name in names if name.startswith("potentials/")]


@pytest.mark.slow
@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_installation_provides_lrc_ase_and_leaves_the_name_potentials_alone(archives, tmp_path, editable):
    requested = ["--editable", ROOT] if editable else [archives[1]]
    prefix = tmp_path / "installed"
    run(*PIP, "install", *OFFLINE, "--ignore-installed", "--prefix", prefix, *requested, cwd=tmp_path)
    (site_packages,) = prefix.rglob("site-packages")
    program = f"""
import site
site.addsitedir({str(site_packages)!r})
from lrc_ase.files.pretrained import trained_potential
try:
    import potentials
except ImportError:
    print(trained_potential("nacl"))
"""
    # isolated (-I, -S): neither this checkout nor the installation that runs the tests is on the path
    printed = run(sys.executable, "-I", "-S", "-c", program, cwd=tmp_path).strip()
    assert printed.endswith("potentials/trained/nacl/potential.safetensors")
    assert printed.startswith(str(ROOT if editable else site_packages))


def test_import_of_the_package_loads_no_heavy_library():
    program = "import sys, lrc_ase; print(*sorted({'torch', 'numba', 'scipy', 'ase', 'matplotlib'} & set(sys.modules)))"
    assert run(sys.executable, "-c", program, cwd=ROOT).strip() == ""


def test_every_public_name_is_loaded_when_it_is_used():
    for name in lrc_ase.__all__:
        assert getattr(lrc_ase, name) is not None
    assert dir(lrc_ase) == lrc_ase.__all__
    with pytest.raises(AttributeError, match="has no attribute 'LRCCalculater'"):
        _ = lrc_ase.LRCCalculater


def test_version_is_that_of_the_project_file():
    declared = [line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("version = ")]
    assert declared == [f'version = "{lrc_ase.__version__}"']


def test_conda_recipe_requires_what_the_project_requires():
    """Names differ for two packages: conda-forge calls torch pytorch, and matplotlib-base has no graphical backend."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = re.findall(
        r'^    "([^"]+)",', project.partition("dependencies = [")[2].partition("\n]")[0], re.MULTILINE
    )
    recipe = RECIPE.read_text(encoding="utf-8").partition("  run:")[2].partition("\n\n")[0]
    required = [line.strip("- ") for line in recipe.splitlines() if line.strip()]
    names = {"torch": "pytorch", "matplotlib": "matplotlib-base", "pytorch-optimizer": "pytorch_optimizer"}
    expected = {
        f"{names.get(name, name)} {bounds}"
        for name, bounds in (re.split(r"(?=>)", each, maxsplit=1) for each in declared)
    }
    assert set(required) - {"python >=3.10"} == expected


def test_conda_recipe_is_valid_and_has_the_version_and_command_of_the_project():
    rattler_build = pytest.importorskip("rattler_build", reason="the extra 'release' is not installed")
    (variant,) = rattler_build.Stage0Recipe.from_file(str(RECIPE)).render(rattler_build.VariantConfig())
    recipe = variant.recipe.to_dict()
    assert recipe["package"] == {"name": "lrc-ase", "version": lrc_ase.__version__}
    assert recipe["build"]["python"]["entry_points"] == ["lrc-ase = lrc_ase.cli:app"]
    assert recipe["build"]["noarch"] == "python"


def test_dockerfile_passes_its_linter():
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if linter is None:
        pytest.skip("the extra 'release' is not installed")
    run(linter, ROOT / "Dockerfile", cwd=ROOT)
