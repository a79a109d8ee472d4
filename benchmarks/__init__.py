"""How fast the package is and what it withstands: a module a question, `python -m benchmarks.NAME`.

They are run from the checkout, and each says its command, and what it needs, in its first lines.
"""
