"""Proxies: scores of an untrained network. One file per formula, and one table of all."""
