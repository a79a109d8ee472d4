"""Anybody's networks, of any framework: measured, and ranked in one table."""
