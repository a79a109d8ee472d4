"""How good the scores are: one module for each question.

Run a module from the checkout by `python -m experiments.NAME`; its first lines give its command and
say what it needs. The results are in `docs/` and `results/`.
"""
