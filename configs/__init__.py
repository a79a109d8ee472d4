"""Configs of the commands: `--config=NAME` takes one of these, `--config=PATH` a file."""
