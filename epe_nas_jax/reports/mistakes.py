"""The mistakes of a trained network, as parts of a page."""

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from PIL import Image

from epe_nas_jax.reports import html

# The whole matrix is shown of up to so many classes.
_MOST_IN_MATRIX = 20


class Mistakes(NamedTuple):
    """Predictions of a network for images that it was not trained on.

    Attributes:
      class_names: of the classes 0..K-1.
      confusion: the number of images of class i that are taken for class j, int `[K, K]`.
      images: some that are taken for another class, uint8 `[B, H, H, 3]`.
      classes: their classes, int `[B]`.
      taken_for: the classes that the network takes them for, int `[B]`.
      probabilities: those that the network gives to these classes, `[B]`.
    """

    class_names: Sequence[str]
    confusion: np.ndarray
    images: np.ndarray
    classes: np.ndarray
    taken_for: np.ndarray
    probabilities: np.ndarray


def mistakes_section(mistakes: Mistakes, held_out: str, seed: int) -> str:
    """Accuracy by class, what classes are taken for, and images with the worst mistakes.

    Args:
      mistakes: the predictions.
      held_out: name of the images' split, for the heading.
      seed: of the network.

    Returns:
      A section of a page, HTML.
    """
    parts = [f"<section><h2>By class ({escape(held_out)} images, seed {seed})</h2>"]
    parts.append(_by_class(mistakes))
    if len(mistakes.class_names) > _MOST_IN_MATRIX:
        parts.append("<p>The images of each class that are taken for another: confusion.csv.</p>")
    else:
        parts.append("<h3>Images of the class in the row, taken for the class in the column</h3>")
        parts.append(_matrix(mistakes))
    if len(mistakes.images):
        parts.append("<h3>The worst mistakes: the lowest probability of the right class</h3>")
        parts.append(_thumbnails(mistakes))
    return "\n".join([*parts, "</section>"])


def _by_class(mistakes: Mistakes) -> str:
    rows = []
    for number, name in enumerate(mistakes.class_names):
        counts = mistakes.confusion[number].copy()
        total, right = counts.sum(), counts[number]
        counts[number] = 0
        other = int(counts.argmax())
        wrong = f"{escape(mistakes.class_names[other])} ({counts[other]})" if counts.any() else ""
        accuracy = f"{100 * right / total:.2f} %" if total else ""
        rows.append([escape(name), f"{total:,}", accuracy, wrong])
    return html.table(["class", "images", "accuracy", "most often taken for"], rows)


def _matrix(mistakes: Mistakes) -> str:
    totals = np.maximum(mistakes.confusion.sum(axis=1), 1)
    rows = []
    for name, counts, total in zip(mistakes.class_names, mistakes.confusion, totals, strict=True):
        cells = [
            f'<span class="share" style="--share:{count / total:.3f}">{count}</span>'
            if count
            else ""
            for count in counts
        ]
        rows.append([escape(name), *cells])
    return f'<div class="matrix">{html.table(["", *mistakes.class_names], rows)}</div>'


def _thumbnails(mistakes: Mistakes) -> str:
    names = mistakes.class_names
    figures = []
    for image, label, other, probability in zip(*mistakes[2:], strict=True):
        said = f"{names[label]}, taken for {names[other]} ({probability:.2f})"
        figures.append(
            f'<figure><img src="{_data_url(image)}" alt="{escape(said)}">'
            f"<figcaption>{escape(said)}</figcaption></figure>"
        )
    return f'<div class="thumbnails">{"".join(figures)}</div>'


def _data_url(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
