"""Searches over a score function, rankings, and searches simulated on scored cells."""
