"""The config of the smallest run."""

from epe_nas_jax.configs import test


def tiny_config(**overrides):
    """`configs/test.py` with other values, by keys such as `search.num_samples`."""
    config = test.get_config()
    config.update_from_flattened_dict(overrides)
    return config
