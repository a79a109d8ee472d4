"""Many cells scored in one compiled program."""
