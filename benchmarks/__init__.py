"""How fast the package is, and which faults it survives: one module for each question.

Run a module from the checkout by `python -m benchmarks.NAME`; its first lines give its command and
say what it needs.
"""
