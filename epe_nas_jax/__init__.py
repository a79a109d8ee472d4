"""EPE-NAS in JAX: score untrained cells by their input Jacobians, thousands in one program.

`__init__.pyi` lists what is public. It is imported when it is first used: a command can then answer
to signals before it imports JAX, which takes seconds.

Shapes are written in these letters, here and in every docstring of the package:

* A cells of a list
* B different cells of a call or a step
* C channels of a layer's input, or of input and output where they are equal
* D pixel values of an image, H times W times 3
* E numbers of a genotype, usually one per edge
* H, W height and width of images, which are equal; W without H: words of a cell's identity
* K classes
* L different lengths of a search
* M images of a data set
* N images of a mini-batch
* O channels of a layer's output
* P proxies or other columns
* R simulated searches
* S cells that a device takes in a step (its slots)
* T cells of a table of accuracies
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
