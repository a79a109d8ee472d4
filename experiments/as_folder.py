r"""Writes images of a data set as PNG files, in one folder per class.

Command:  python -m experiments.as_folder --name=npz --path=cifar10.npz --images=500 --out=images
"""

from pathlib import Path

import numpy as np
from absl import app, flags
from PIL import Image

from epe_nas_jax import load_dataset


def write_folder(name: str, path: str, num_images: int, out: Path) -> int:
    """Writes the first images of a data set, and returns how many they are."""
    dataset = load_dataset(name, path)
    images = np.asarray(dataset.images[:num_images])
    if images.dtype != np.uint8:
        raise ValueError(f"{name}: found {images.dtype}, expected bytes")
    for number, (image, label) in enumerate(zip(images, dataset.labels, strict=False)):
        directory = out / f"{label:03d}"
        directory.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(directory / f"{number:05d}.png")
    return len(images)


def main(_: list[str]) -> None:
    """Runs the experiment."""
    args = flags.FLAGS
    num_images = write_folder(args.name, args.path, args.images, Path(args.out))
    print(f"{args.out}: {num_images} images")


if __name__ == "__main__":
    flags.DEFINE_string("name", None, "A data set, as in data.name.", required=True)
    flags.DEFINE_string("path", "", "Path of the data set, as in data.path.")
    flags.DEFINE_integer("images", 500, "How many of its first images.")
    flags.DEFINE_string("out", None, "The folder to write.", required=True)
    app.run(main)
