"""Training one cell's network, as the benchmark did."""
