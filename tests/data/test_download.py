"""Downloads from a server on this machine: nothing leaves it."""

import gc
import hashlib
import http.server
import subprocess
import sys
import threading
import warnings

import pytest

from epe_nas_jax import InputError
from epe_nas_jax.data.download import Archive, default_cache, fetch

CONTENT = bytes(range(256)) * 5000


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.num_requests += 1
        if "missing" in self.path:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000] if "cut" in self.path else CONTENT)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.num_requests = 0
        server.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    # pooch leaves the connection of a failed download to the garbage collector.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_an_archive_is_fetched_once_and_kept(server, tmp_path, capsys):
    archive = Archive(f"{server.address}/data.tar.gz", hashlib.md5(CONTENT).hexdigest())
    path = fetch(archive, tmp_path / "cache")
    assert path == tmp_path / "cache/data.tar.gz"
    assert path.read_bytes() == CONTENT
    assert "100%" in capsys.readouterr().err
    assert fetch(archive, tmp_path / "cache") == path
    assert server.num_requests == 1
    path.write_bytes(b"spoilt")
    fetch(archive, tmp_path / "cache")
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong.tar.gz", "MD5 hash .* does not match"),
        ("cut.tar.gz", "could not be downloaded"),
        ("missing.tar.gz", "404"),
    ],
)
def test_what_is_not_the_archive_is_refused_and_not_kept(server, tmp_path, name, message):
    content = CONTENT + b"more" if name.startswith("wrong") else CONTENT
    archive = Archive(f"{server.address}/{name}", hashlib.md5(content).hexdigest())
    with pytest.raises(InputError, match=message) as caught:
        fetch(archive, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_without_a_network_it_says_what_to_get_and_where_to_put_it(server, tmp_path):
    url = f"{server.address}/data.tar.gz"
    server.server_close()
    with pytest.raises(
        InputError, match=f"{url}: could not be downloaded .* put it into {tmp_path}"
    ):
        fetch(Archive(url, "0" * 32), tmp_path)
    assert not list(tmp_path.iterdir())


def test_downloads_go_into_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "epe_nas_jax/data"


def test_data_sets_are_there_without_the_downloader():
    """Its progress bar warns in notebooks that lack a package."""
    script = "import sys, epe_nas_jax; epe_nas_jax.load_dataset; print('tqdm.auto' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
