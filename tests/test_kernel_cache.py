"""Kernels on disk: damaged files, folders that cannot be written, and what the cache takes from Numba's internals."""

import errno
import importlib
import importlib.util
import inspect
import re
import warnings
from pathlib import Path

import numba
import pytest
from numba.core import caching

from lrc_ase.compiled import kernel_cache
from lrc_ase.compiled.compilation import compiled
from lrc_ase.compiled.kernel_cache import KernelCacheWarning

SOURCE = "def add(first, second):\n    return first + second\n"


@pytest.fixture(autouse=True)
def nobody_was_warned(monkeypatch):
    monkeypatch.setattr(kernel_cache, "_warnings_given", [])


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Function that makes a kernel as a new process would, kept in `tmp_path`."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "kept"))
    path = tmp_path / "kernels.py"
    path.write_text(SOURCE)

    def make():
        spec = importlib.util.spec_from_file_location("kernels", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return compiled(module.add, "add")

    return make


def files(folder: Path, ending: str) -> list[Path]:
    kept = sorted((folder / "kept").rglob(f"*.{ending}"))
    assert kept, "the kernel was not kept"
    return kept


def hits(kernel) -> int:
    return sum(kernel.stats.cache_hits.values())


def test_a_kernel_is_loaded_by_the_next_process(kernel):
    assert (first := kernel())(1, 2) == 3
    assert (second := kernel())(1, 2) == 3
    assert (hits(first), hits(second)) == (0, 1)


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: content[:100], lambda content: content[:-1], lambda content: b"x" * 500],
    ids=["empty", "first 100 bytes", "last byte lost", "something else"],
)
def test_a_damaged_file_is_made_anew_with_one_warning(kernel, tmp_path, ending, damage):
    kernel()(1, 2)
    for path in files(tmp_path, ending):
        path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(KernelCacheWarning, match=r"damaged and are compiled again \(wrong checksum") as warned:
        assert (damaged := kernel())(1, 2) == 3
    assert len(warned) == 1
    assert (mended := kernel())(1, 2) == 3
    assert (hits(damaged), hits(mended)) == (0, 1)


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
def test_a_flipped_bit_is_never_run(kernel, tmp_path, ending, monkeypatch):
    kernel()(1, 2)
    (path,) = files(tmp_path, ending)
    sound = path.read_bytes()
    for index in range(0, len(sound), len(sound) // 20):
        path.write_bytes(sound[:index] + bytes([sound[index] ^ 1]) + sound[index + 1 :])
        monkeypatch.setattr(kernel_cache, "_warnings_given", [])
        with pytest.warns(KernelCacheWarning, match="wrong checksum"):
            assert kernel()(1, 2) == 3


def test_a_kernel_whose_file_was_deleted_is_compiled_again(kernel, tmp_path):
    kernel()(1, 2)
    for path in files(tmp_path, "nbc"):
        path.unlink()
    assert kernel()(1, 2) == 3
    assert files(tmp_path, "nbc")


def test_nothing_is_kept_where_no_folder_can_be_written(kernel, monkeypatch):
    def refuse(self):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", refuse)
    with pytest.warns(KernelCacheWarning, match="set NUMBA_CACHE_DIR to a folder that can be written") as warned:
        assert [kernel()(1, 2) for _ in range(2)] == [3, 3]
    assert len(warned) == 1  # for all kernels of the process


def test_a_full_disk_is_no_reason_to_end(kernel, monkeypatch):
    def refuse(self, name, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", refuse)
    with pytest.warns(KernelCacheWarning, match=r"NUMBA_CACHE_DIR .*No space left on device") as warned:
        assert kernel()(1, 2) == 3
    assert len(warned) == 1


def test_a_cache_folder_that_cannot_be_written_is_named(kernel, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "file"))
    with pytest.warns(KernelCacheWarning, match=r"NUMBA_CACHE_DIR=\S+file cannot be written: .* kept in"):
        assert kernel()(1, 2) == 3
    assert (again := kernel())(1, 2) == 3
    assert hits(again) == 1


def test_disabled_compilation_says_what_to_do(kernel, monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    with pytest.raises(ValueError, match="unset NUMBA_DISABLE_JIT"):
        kernel()


def test_sound_files_cause_no_warning(kernel):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            kernel()(1, 2)


INTERNALS = {
    "FunctionCache.__init__": ["self", "py_func"],
    "FunctionCache.load_overload": ["self", "sig", "target_context"],
    "FunctionCache.save_overload": ["self", "sig", "data"],
    "IndexDataCacheFile.__init__": ["self", "cache_path", "filename_base", "source_stamp"],
    "IndexDataCacheFile._open_for_write": ["self", "filepath"],
    "IndexDataCacheFile._load_index": ["self"],
    "IndexDataCacheFile._load_data": ["self", "name"],
    "IndexDataCacheFile._data_path": ["self", "name"],
    "NullCache.__init__": ["self"],
}


@pytest.mark.parametrize("name", INTERNALS)
def test_numba_still_has_the_method_that_we_replace(name):
    owner, method = name.split(".")
    replaced = getattr(getattr(caching, owner, None), method, None)
    hint = f"Numba {numba.__version__} has changed {name}: adapt lrc_ase/compiled/kernel_cache.py, then raise the bound"
    assert replaced is not None, hint
    if method != "__init__" or owner != "NullCache":
        assert list(inspect.signature(replaced).parameters) == INTERNALS[name], hint


def test_numba_still_keeps_the_cache_where_we_set_it(kernel):
    cached = numba.njit(cache=True)(kernel().py_func)
    hint = f"Numba {numba.__version__} keeps the cache of a function elsewhere: adapt lrc_ase/compiled/compilation.py"
    assert isinstance(cached._cache, caching.FunctionCache), hint
    assert isinstance(cached._cache._cache_file, caching.IndexDataCacheFile), hint
    assert isinstance(numba.njit(lambda: 1)._cache, caching.NullCache), hint


USED_BY_VECTORS = {
    "numba.core.cgutils": ("get_or_insert_function",),
    "numba.core.types": ("CPointer", "Float", "IntegerLiteral", "Type", "float32", "int64", "void"),
    "numba.extending": ("intrinsic", "lower_builtin", "register_model", "type_callable"),
    "numba.core.datamodel.models": ("PrimitiveModel",),
    "llvmlite.ir": ("Constant", "FunctionType", "IntType", "Undefined", "VectorType"),
}


@pytest.mark.parametrize("module", USED_BY_VECTORS)
def test_numba_still_has_what_vectors_are_made_of(module):
    missing = [name for name in USED_BY_VECTORS[module] if not hasattr(importlib.import_module(module), name)]
    assert not missing, f"Numba {numba.__version__} lacks {module}.{missing}: adapt lrc_ase/compiled/simd.py"


def test_the_installed_numba_lies_within_the_bounds():
    project = Path(__file__).resolve().parents[1] / "pyproject.toml"
    (bounds,) = re.findall(r'"numba>=([\d.]+),<([\d.]+)"', project.read_text())
    lowest, above = (tuple(map(int, bound.split("."))) for bound in bounds)
    assert lowest <= tuple(map(int, numba.__version__.split(".")[:2])) < above
