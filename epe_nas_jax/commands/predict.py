r"""The predict command: the classes of all images in a folder, by a trained network.

Command:  epe-nas predict --from_run=runs/train --images=photos --out=predictions.csv
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from absl import flags
from tqdm import tqdm

from epe_nas_jax.commands.cli import run_with_trained
from epe_nas_jax.data.files import check_no_special_file, user_path
from epe_nas_jax.data.folders import images_below, read_image
from epe_nas_jax.errors import InputError, printable
from epe_nas_jax.reports.text import Table, as_text
from epe_nas_jax.runs.storage import local_path, write
from epe_nas_jax.training.trained import PREDICT_BATCH, TrainedNetwork, load_trained

_LOG = logging.getLogger(__name__)


def predict_folder(from_run: str, images: str, out: str, seed: int | None = None) -> str:
    """Writes the class of every image in a folder and in the folders in it, as CSV.

    A row has the columns `file`, `class`, `probability`, `error`, and `probability_NAME` for every
    class. Images are resized as for training. The row of an image that cannot be read has only the
    file and the error.

    Args:
      from_run: the work directory of a finished training.
      images: the folder.
      out: the CSV file.
      seed: one of the seeds that were trained; None: the first one.

    Returns:
      A table of how many images each class has.

    Raises:
      InputError: as `load_trained`; there is no image that can be read; or `out` is no file.
    """
    place = local_path(out)
    if place.is_dir():
        raise InputError(f"{out}: found a folder, expected a CSV file or nothing")
    check_no_special_file(place, "a CSV file or nothing")
    above = next(parent for parent in place.absolute().parents if parent.exists())
    if not above.is_dir():
        raise InputError(f"{out}: found a file at {above}, expected a folder")
    if not images:
        raise InputError("images: found nothing, expected a folder")
    folder = user_path(images)
    files = images_below(folder)
    if place.resolve() in {file.resolve() for file in files}:
        raise InputError(f"{out}: found an image of the folder, expected a CSV file or nothing")
    trained = load_trained(from_run, seed=seed)
    with tqdm(total=len(files), unit="image", disable=None) as bar:
        rows = []
        for row in _rows(trained, folder, files):
            rows.append(row)
            bar.update()
    errors = [row for row in rows if row["error"]]
    if len(errors) == len(rows):
        first = f"{errors[0]['file']}: {errors[0]['error']}"
        raise InputError(f"{folder}: found no readable image of {len(rows)}, the first is {first}")
    for row in errors:
        # A file's name may contain line breaks.
        line = " ".join(f"{row['file']}: {row['error']}".splitlines())
        _LOG.warning("%s", printable(line))
    content = pd.DataFrame(rows).to_csv(index=False, float_format="%.7g")
    write(place, content.encode(errors="backslashreplace"))
    return _as_text(rows, len(errors), out)


def _rows(trained: TrainedNetwork, folder: Path, files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The rows of the CSV file, in the order of the files."""
    for start in range(0, len(files), PREDICT_BATCH):
        found = [
            (file, *_read(file, trained.side)) for file in files[start : start + PREDICT_BATCH]
        ]
        images = [image for _, image, _ in found if image is not None]
        probabilities = iter(trained.predict(np.stack(images)) if images else ())
        for file, image, error in found:
            row = {"file": file.relative_to(folder).as_posix(), "class": "", "probability": None}
            row["error"] = error
            if image is not None:
                row |= _prediction(next(probabilities), trained.class_names)
            yield row


def _read(file: Path, side: int) -> tuple[np.ndarray | None, str]:
    """An image and an empty text, or None and what is wrong with it."""
    try:
        return read_image(file, side), ""
    except InputError as error:
        # The path as it is written in messages.
        path = str(InputError(str(file)))
        return None, str(error).removeprefix(f"{path}: ").replace(path, file.name)


def _prediction(probabilities: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    largest = int(probabilities.argmax())
    return {
        "class": class_names[largest],
        "probability": probabilities[largest],
        **{
            f"probability_{name}": probability
            for name, probability in zip(class_names, probabilities, strict=True)
        },
    }


def _as_text(rows: Sequence[dict[str, Any]], num_errors: int, out: str) -> str:
    counts = Counter(row["class"] for row in rows if not row["error"])
    table = Table(
        f"{len(rows) - num_errors} images in {out}",
        ["class", "images"],
        [[name, str(count)] for name, count in counts.most_common()],
    )
    text = as_text(table)
    return text if not num_errors else f"{text}\n\n{num_errors} not readable: their rows say why"


def main() -> None:
    """Defines the flags and runs the command."""
    images = flags.DEFINE_string(
        "images", None, "Folder of images of any size; its folders are read, too.", required=True
    )
    out = flags.DEFINE_string("out", None, "CSV file for the predictions.", required=True)
    run_with_trained(lambda from_run, seed: predict_folder(from_run, images.value, out.value, seed))
