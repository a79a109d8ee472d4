"""EPE-NAS in JAX: score untrained cells by their input Jacobians, thousands in one program.

`__init__.pyi` lists what is public. It is imported when it is first used: a command can then answer
to signals before it imports JAX, which takes seconds.

Shapes are written in these letters, here and in every docstring of the package:

* A cells, or what there is one of for each of them
* B different cells of a call or a step
* C channels that come in
* D inputs of an image, H times W times 3
* E numbers of a genotype, as a rule one an edge
* H, W height and width of images, which are equal; W without H: words of a cell's identity
* K classes
* L lengths of a search
* M images of a data set
* N images of a mini-batch
* O channels that go out
* P proxies or other columns
* R simulated searches
* S slots of a device in a step
* T cells of a table of accuracies
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
