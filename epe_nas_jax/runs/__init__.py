"""What lies around a run: its directory, log, processes and signals."""
