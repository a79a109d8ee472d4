import pytest

from epe_nas_jax import InputError, ScoringConfig


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init": "other"}, "init: found 'other'"),
        (
            {"proxies": ("epe", "other")},
            "proxy: found 'other', expected one of epe, epe_two_branch",
        ),
        ({"precision": "half"}, "precision: found 'half'"),
        ({"proxies": ()}, "proxies: found none"),
        ({"proxies": ("nwot", "nwot")}, "proxies: found 'nwot' twice"),
        ({"num_inits": 0}, "num_inits: found 0"),
        ({"fresh_batch": 1}, "fresh_batch: found 1"),
        ({"augment": True}, "augment: needs fresh_batch"),
        ({"class_balanced": True}, "class_balanced: needs fresh_batch"),
    ],
)
def test_bad_config_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        ScoringConfig(**arguments)


def test_only_shared_weights_on_one_mini_batch_are_all_shared():
    assert ScoringConfig().all_shared
    assert not ScoringConfig(init="independent").all_shared
    assert not ScoringConfig(fresh_batch=4).all_shared


def test_equal_configs_are_one_key():
    one, other = (ScoringConfig(proxies=("epe", "nwot")) for _ in range(2))
    assert len({one, other}) == 1
