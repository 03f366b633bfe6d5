"""Files are written whole or not at all, with the permissions that the user wants, and never through planted links."""

import errno
import os
import stat

import pytest
from matplotlib.figure import Figure

from lrc_ase.files.atomic import remove_leftovers, replacing, write_atomically, writing
from lrc_ase.report.style import save_figure


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def permissions(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "no bytes")
    with pytest.raises(TypeError), writing(path) as file:  # noqa: PT012
        file.write(b"half of")
        file.write("no bytes")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_permissions_of_the_umask(tmp_path, umask):
    write_atomically(tmp_path / "new", b"")
    assert permissions(tmp_path / "new") == 0o666 & ~umask


@pytest.mark.parametrize("kept", [0o600, 0o640, 0o444])
def test_a_replaced_file_keeps_its_permissions(tmp_path, kept):
    path = tmp_path / "file"
    path.touch()
    path.chmod(kept)
    write_atomically(path, b"new")
    assert (path.read_bytes(), permissions(path)) == (b"new", kept)


def test_temporary_names_are_random_and_a_planted_link_is_not_followed(tmp_path, monkeypatch):
    path = tmp_path / "md.restart.npz"
    names = set()
    for _ in range(3):
        with replacing(path) as temporary:
            names.add(temporary.name)
            assert (temporary.parent, temporary.suffix) == (path.parent, ".npz")
    assert len(names) == 3
    monkeypatch.setattr("lrc_ase.files.atomic.secrets.token_hex", lambda n: "0" * 2 * n)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    planted = tmp_path / f".md.restart.npz.{'0' * 16}.npz"
    planted.symlink_to(victim)
    with pytest.raises(FileExistsError, match=r"md\.restart\.npz'"):
        write_atomically(path, b"state")
    assert victim.read_bytes() == b"precious"


def test_a_link_at_the_target_is_replaced_and_its_file_left_alone(tmp_path):
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert (tmp_path / "link").read_bytes() == b"new"


def test_folders_and_devices_are_refused(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write_atomically(tmp_path, b"")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is no regular file"):
        write_atomically(tmp_path / "pipe", b"")


def test_errors_of_the_disk_name_the_file_and_other_errors_pass(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(OSError, match=r"No space left on device: '.*/file'") as raised, writing(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert raised.value.filename == str(path)
    with pytest.raises(FileNotFoundError, match="/absent/file'"):
        write_atomically(tmp_path / "absent" / "file", b"")
    with pytest.raises(FileNotFoundError, match="elsewhere") as raised, writing(path):
        open("elsewhere/frames")  # noqa: SIM115
    assert raised.value.filename == "elsewhere/frames"
    assert not list(tmp_path.iterdir())


def test_text_is_written_as_it_is(tmp_path):
    with writing(tmp_path / "text", text=True) as file:
        file.write("25 °C\n")
    assert (tmp_path / "text").read_bytes() == "25 °C\n".encode()


def test_a_name_as_long_as_the_file_system_allows_is_written(tmp_path):
    path = tmp_path / ("n" * 255)
    write_atomically(path, b"x")
    assert path.read_bytes() == b"x"


def test_leftovers_of_killed_writes_are_removed_and_nothing_else(tmp_path):
    path = tmp_path / "p.safetensors"
    leftover = tmp_path / f".p.safetensors.{'0123456789abcdef'}.safetensors"
    others = [tmp_path / name for name in (".p.safetensors.note", ".p.safetensors.0123.safetensors", "p.safetensors")]
    for file in (leftover, *others):
        file.touch()
    remove_leftovers(path)
    assert sorted(tmp_path.iterdir()) == sorted(others)


@pytest.mark.parametrize(("name", "start"), [("plot.png", b"\x89PNG"), ("plot", b"\x89PNG"), ("plot.pdf", b"%PDF")])
def test_a_figure_that_cannot_be_drawn_leaves_the_old_one(tmp_path, name, start):
    path = tmp_path / name
    save_figure(Figure(), path)
    assert path.read_bytes().startswith(start)
    broken = Figure()
    broken.text(0.5, 0.5, "$_{$")
    with pytest.raises(ValueError, match=r"ParseException|Expected"):
        save_figure(broken, path)
    assert path.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [path]
