"""The table of data sets: to add one is an entry here (docs/extending.md)."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from epe_nas_jax.data.archives import imagenet_batches, pickled_batches, records
from epe_nas_jax.data.download import Archive
from epe_nas_jax.data.readers import DIGITS, FOLDER, NPZ, Reader, official
from epe_nas_jax.errors import InputError


class Statistics(NamedTuple):
    """Statistics of the pixels 0..255 of the training images, by channel.

    Attributes:
      mean: the means.
      std: the standard deviations.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A data set.

    Attributes:
      name: as the config key `data.name` has it.
      reader: how it is read.
      num_classes: K; None: as many as the training images have.
      class_names: the names of the classes 0..K-1; empty: those that the reader finds or, where it
        finds none, the labels.
      statistics: those by which its images are normalised; None: computed from its training images.
      archive: the official archive that can be downloaded, if there is one.
      where: what `data.path` must name, for messages, where there is no `archive`; empty: the data
        set needs no path.
      accuracy_columns: the columns that tables of trained accuracies have of it: first that of test
        accuracies, then, where there is one, that of validation accuracies.
      nats_columns: from a column, without the epochs at its end, to NATS-Bench's names of the data
        set and the metric.
    """

    name: str
    reader: Reader
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    statistics: Statistics | None = None
    archive: Archive | None = None
    where: str = ""
    accuracy_columns: tuple[str, ...] = ()
    nats_columns: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)


_CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""
_CIFAR10_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))

# All data sets by name. The statistics are those that NAS-Bench-201 uses.
DATASETS = {
    entry.name: entry
    for entry in (
        Entry(name="digits", reader=DIGITS, num_classes=10),
        Entry(
            name="cifar10",
            reader=official(
                records(
                    [f"{file}.bin" for file in _CIFAR10_BATCHES],
                    ["test_batch.bin"],
                    label_bytes=1,
                    side=32,
                ),
                pickled_batches(_CIFAR10_BATCHES, ["test_batch"], labels_key="labels", side=32),
            ),
            num_classes=10,
            class_names=tuple(_CIFAR10_CLASSES.split()),
            statistics=Statistics((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
            archive=Archive(
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "c32a1d4ab5d03f1284b67883e8d87530",
            ),
            accuracy_columns=("cifar10_test_200", "cifar10_xvalid_200"),
            # NATS-Bench's cifar10-valid is trained on half of the training set.
            nats_columns={
                "cifar10_test": ("cifar10", "test-accuracy"),
                "cifar10_xvalid": ("cifar10-valid", "valid-accuracy"),
                "cifar10valid_test": ("cifar10-valid", "test-accuracy"),
            },
        ),
        Entry(
            name="cifar100",
            reader=official(
                records(["train.bin"], ["test.bin"], label_bytes=2, side=32),
                pickled_batches(["train"], ["test"], labels_key="fine_labels", side=32),
            ),
            num_classes=100,
            class_names=tuple(_CIFAR100_CLASSES.split()),
            statistics=Statistics((129.3, 124.1, 112.4), (68.2, 65.4, 70.4)),
            archive=Archive(
                "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
                "03b5dce01913d631647c71ecec9e9cb8",
            ),
            accuracy_columns=("cifar100_test_200",),
            nats_columns={
                "cifar100_test": ("cifar100", "test-accuracy"),
                "cifar100_xvalid": ("cifar100", "valid-accuracy"),
            },
        ),
        # The first 120 classes of ImageNet at 16x16 pixels (Dong & Yang 2020).
        Entry(
            name="imagenet16_120",
            reader=official(
                imagenet_batches(
                    [f"train_data_batch_{i}" for i in range(1, 11)],
                    ["val_data"],
                    num_classes=120,
                    side=16,
                ),
            ),
            num_classes=120,
            statistics=Statistics((122.68, 116.66, 104.01), (63.22, 61.26, 65.09)),
            where=(
                "Imagenet16_train.zip, the downsampled ImageNet of image-net.org (behind a login), "
                "its folder or an .npz file"
            ),
            accuracy_columns=("imagenet16_test_200",),
            nats_columns={
                "imagenet16_test": ("ImageNet16-120", "test-accuracy"),
                "imagenet16_xvalid": ("ImageNet16-120", "valid-accuracy"),
            },
        ),
        Entry(name="npz", reader=NPZ, where="an .npz file"),
        Entry(name="folder", reader=FOLDER, where="a folder of images by class"),
    )
}


def dataset_entry(name: str) -> Entry:
    """Finds the entry of a data set by its name.

    Raises:
      InputError: there is no data set of that name.
    """
    if name not in DATASETS:
        raise InputError(f"data set {name!r}: unknown, expected one of {', '.join(DATASETS)}")
    return DATASETS[name]
