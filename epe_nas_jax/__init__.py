"""EPE-NAS in JAX: score untrained cells by their input Jacobians, thousands in one program.

`__init__.pyi` lists what is public. It is imported when it is first used: a command can then answer
to signals before it imports JAX, which takes seconds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
