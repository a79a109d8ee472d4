"""Search spaces: their cells, and the networks around them. One folder per space."""
