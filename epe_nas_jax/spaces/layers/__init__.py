"""The layers of which the networks of all spaces are built."""
