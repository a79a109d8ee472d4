"""Reports of a run for people: text, plots and pages."""
