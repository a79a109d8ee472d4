"""DARTS (Liu et al. 2019): pairs of a normal and a reduction cell."""
