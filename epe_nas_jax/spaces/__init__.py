"""Search spaces: their cells, and the networks around them. A folder a space."""
