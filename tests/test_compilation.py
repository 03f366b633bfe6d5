"""Kernels on disk and the sources they were made of."""

import shutil
from pathlib import Path

import pytest

import lrc_ase
from lrc_ase.compiled.compilation import compiled, sources_digest

PACKAGE = Path(lrc_ase.__file__).parent


def copied(folder):
    """A copy of the package, without the kernels on disk, which other tests write meanwhile."""
    return Path(shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__")))


def test_a_kernel_is_named_after_its_variant_and_all_sources():
    def kernel():
        return 1

    assert compiled(kernel, "three", 3, "float32").py_func.__qualname__ == f"three_3_float32_{sources_digest(PACKAGE)}"


@pytest.mark.parametrize(
    "module",
    [
        "compiled/simd.py",
        "layer/mesh/cpu/sorting.py",
        "layer/mesh/cpu/stencils.py",
        "models/descriptors/sphere/compiled_moments.py",
    ],
)
def test_kernels_are_compiled_anew_when_a_function_in_another_file_changes(tmp_path, module):
    before, after = copied(tmp_path / "before"), copied(tmp_path / "after")
    with (after / module).open("a") as file:
        file.write("# changed\n")
    assert sources_digest(before) == sources_digest(PACKAGE)
    assert sources_digest(after) != sources_digest(before)


def test_other_modules_do_not_matter(tmp_path):
    folder = copied(tmp_path / "copy")
    with (folder / "calculator.py").open("a") as file:
        file.write("# changed\n")
    assert sources_digest(folder) == sources_digest(PACKAGE)


def test_kernels_stay_when_a_module_without_kernels_changes(tmp_path):
    folder = copied(tmp_path / "package")
    with (folder / "training/loop.py").open("a") as file:
        file.write("# changed\n")
    assert sources_digest(folder) == sources_digest(PACKAGE)
