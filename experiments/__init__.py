"""What the scores are worth: a module a question, `python -m experiments.NAME`.

They are run from the checkout, and each says its command, and what it needs, in its first lines.
What they found is in `docs/` and `results/`.
"""
