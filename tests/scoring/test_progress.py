import logging

import pytest

from epe_nas_jax.scoring.progress import progress_bar


@pytest.fixture
def clock(monkeypatch):
    """Tqdm's time, which only goes on when it is told to."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


def test_every_update_is_one_line_and_what_was_done_before_does_not_count_as_fast(clock, caplog):
    caplog.set_level(logging.INFO, "epe_nas_jax")
    with progress_bar(100, 60, unit="network") as bar:
        for _ in range(3):
            clock(2.0)
            bar.update(8)
    assert [record.getMessage() for record in caplog.records] == [
        "68 of 100 networks, 4 a second, 8 s left",
        "76 of 100 networks, 4 a second, 6 s left",
        "84 of 100 networks, 4 a second, 4 s left",
    ]


def test_where_the_log_is_off_there_is_a_bar_and_no_line(capsys, caplog):
    with progress_bar(4, unit="network") as bar:
        bar.update(3)
    assert "3/4" in capsys.readouterr().err
    assert caplog.records == []


def test_hidden_is_hidden(capsys, caplog):
    for level in (logging.WARNING, logging.INFO):
        caplog.set_level(level, "epe_nas_jax")
        with progress_bar(4, unit="network", disable=True) as bar:
            bar.update(3)
    assert capsys.readouterr().err == ""
    assert caplog.records == []
