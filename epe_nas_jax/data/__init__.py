"""Images and trained accuracies, from files to arrays."""
