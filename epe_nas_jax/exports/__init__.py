"""A trained network for use without this package."""
