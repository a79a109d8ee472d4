"""Commands: from a config to a finished work directory."""
