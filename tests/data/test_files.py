import os

import pytest

from epe_nas_jax import InputError
from epe_nas_jax.data.files import regular_file, user_path


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a/b") == tmp_path / "a/b"
    assert user_path(tmp_path / "~") == tmp_path / "~"
    with pytest.raises(InputError, match="~nobody-here/x: found no such user"):
        user_path("~nobody-here/x")


def test_only_regular_files_are_let_through(tmp_path):
    file = tmp_path / "file"
    file.write_text("text")
    (tmp_path / "link").symlink_to(file)
    for name in ("file", "link"):
        assert regular_file(tmp_path / name, "a file") == tmp_path / name
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, message in (
        (tmp_path, "found a folder, expected a file"),
        (tmp_path / "missing", "no such file, expected a file"),
        (tmp_path / "file/inner", "no such file, expected a file"),
        (tmp_path / "loop", "no such file, expected a file"),
        (tmp_path / "pipe", "found a pipe or a device, expected a file"),
        ("/dev/zero", "found a pipe or a device, expected a file"),
        (str(tmp_path / "nul\0"), "no such file, expected a file"),
        (str(tmp_path / ("long" * 100)), "File name too long, expected a file"),
    ):
        with pytest.raises(InputError, match=message):
            regular_file(path, "a file")
