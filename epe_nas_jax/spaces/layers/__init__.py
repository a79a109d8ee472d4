"""Layers that the networks of the spaces are built from."""
