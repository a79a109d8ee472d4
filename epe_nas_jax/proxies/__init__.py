"""Proxies: scores of an untrained network. A formula a file, and one table of all."""
