import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from epe_nas_jax.runs.stopping import StopRequested, stop_requests

ROOT = Path(__file__).parents[2]
SIGNALS = [signal.SIGTERM, signal.SIGINT]


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def signal_and_ask(check, number):
    check()
    os.kill(os.getpid(), number)
    check()
    pytest.fail("the signal was not heard")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_kept_until_asked_for(number):
    with pytest.raises(StopRequested, match=number.name) as told, stop_requests() as check:
        signal_and_ask(check, number)
    assert told.value.signal_number == number


def test_nothing_is_left_of_hearing_signals():
    def state():
        handlers = [signal.getsignal(number) for number in SIGNALS]
        return handlers, threading.active_count(), sorted(Path("/proc/self/fd").iterdir())

    before = state()
    with stop_requests():
        assert state() != before
    assert state() == before


def test_a_signal_that_nobody_asked_for_is_told_in_the_end():
    with pytest.raises(StopRequested, match="SIGTERM"), stop_requests():
        os.kill(os.getpid(), signal.SIGTERM)


# The main thread runs no Python for minutes, as in a compiler.
BUSY = """
import hashlib
from epe_nas_jax.runs.stopping import stop_requests
with stop_requests():
    print(flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


def test_a_second_signal_ends_the_process_whatever_it_is_in():
    with start("-c", BUSY) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert err in ("stopped by SIGINT\n", "stopped by SIGTERM\n")
    assert process.returncode == 128 + signal.Signals[err.split()[-1]]


def test_it_ends_though_nobody_listens():
    with start("-c", f"import os; os.close(2)\n{BUSY}") as process:
        process.stdout.readline()
        for number in SIGNALS:
            process.send_signal(number)
        assert process.wait(timeout=60) in [128 + number for number in SIGNALS]


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("main", signal.SIGTERM),
        ("main", signal.SIGINT),
        ("train", signal.SIGINT),
        ("compare", signal.SIGINT),
        ("tables", signal.SIGTERM),
    ],
)
def test_a_signal_while_jax_is_imported_is_one_line(tmp_path, command, number):
    lines = [""]
    with start(
        *("-X", "importtime", "-m", f"epe_nas_jax.{command}"),
        *("--config=configs/test.py", f"--workdir={tmp_path}/w"),
    ) as process:
        while not re.search(r"\| +jax\.", lines[-1]):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        process.send_signal(number)
        lines += process.stderr.readlines()
    assert process.returncode == 128 + number
    own = [line for line in lines[1:] if not line.startswith("import time:")]
    assert own == [f"stopped by {number.name}\n"]
    assert not (tmp_path / "w").exists()


def test_a_signal_while_it_compiles_is_one_line(tmp_path):
    # Without a program in the cache it has to.
    with start(
        *("-m", "epe_nas_jax.main", "--config=configs/test.py", f"--workdir={tmp_path}/w"),
        JAX_COMPILATION_CACHE_DIR=str(tmp_path / "cache"),
    ) as process:
        while not (tmp_path / "w/config.json").exists():
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    assert out == ""
    assert err == "stopped by SIGINT: run the same command again to continue\n"
    assert (tmp_path / "w/steps-0.jsonl").read_bytes() == b""
