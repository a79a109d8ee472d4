from typing import get_args

import oracles
import pytest

from epe_nas_jax import InputError
from epe_nas_jax.proxies.table import PROXIES, Need, check_proxies


def test_every_proxy_has_an_oracle():
    assert set(oracles.ORACLES) == set(PROXIES)


@pytest.mark.parametrize("name", PROXIES)
def test_an_entry_is_complete(name):
    proxy = PROXIES[name]
    assert proxy.name == name
    assert proxy.source
    assert proxy.needs <= set(get_args(Need))


def test_all_names_pass_in_any_order():
    check_proxies(tuple(PROXIES))
    check_proxies(tuple(reversed(PROXIES)))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "proxies: found none, expected some of epe, epe_two_branch"),
        (("epe", "other"), "proxy: found 'other', expected one of epe, epe_two_branch"),
        (("nwot", "epe", "nwot"), "proxies: found 'nwot' twice"),
    ],
)
def test_other_names_are_refused(names, message):
    with pytest.raises(InputError, match=message):
        check_proxies(names)
