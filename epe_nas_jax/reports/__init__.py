"""What a person reads of a run: text, plots and pages."""
