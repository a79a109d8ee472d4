import numpy as np
import pytest
from PIL import Image

from epe_nas_jax import InputError
from epe_nas_jax.data.datasets import load_dataset


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Three images of a `b`, two of an `a` and a file that is passed over, 8x8."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    for name, image in zip(("b/1", "b/2", "b/3", "a/x", "a/y"), images, strict=True):
        save(tmp_path / f"own/{name}.png", image)
    (tmp_path / "own/a/.DS_Store").write_bytes(b"no image")
    (tmp_path / "own/readme.txt").write_text("of no class")
    return tmp_path / "own", images


def test_classes_are_the_folders_in_alphabetical_order(folder):
    path, images = folder
    own = load_dataset("folder", str(path))
    assert own.images.dtype == np.uint8
    assert np.array_equal(own.images, images[[3, 4, 0, 1, 2]])
    assert own.labels.tolist() == [0, 0, 1, 1, 1]
    assert own.num_classes == 2
    assert np.allclose(own.mean, images.mean((0, 1, 2)) / 255)


def test_any_format_and_mode_of_8_bits(folder):
    path, _ = folder
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    save(path / "c/grey.png", grey)
    save(path / "c/photo.jpg", np.full((8, 8, 3), 200, np.uint8))
    Image.fromarray(grey).convert("P").save(path / "c/palette.gif")
    save(path / "c/see_through.png", np.dstack([grey, grey, grey, grey]))
    own = load_dataset("folder", str(path))
    found = own.images[own.labels == 2]
    assert len(found) == 4
    for image in (found[0], found[1], found[3]):
        assert np.array_equal(image, np.dstack([grey] * 3))
    assert np.abs(found[2].astype(int) - 200).max() <= 2  # JPEG rounds.


def test_images_are_resized_only_if_asked_by_means_of_boxes(folder):
    path, images = folder
    own = load_dataset("folder", str(path), side=4)
    # A pixel is the mean of 2x2, rounded once down the columns and once along the rows.
    boxes = images.reshape(5, 4, 2, 4, 2, 3).mean((2, 4))
    assert np.abs(own.images - boxes[[3, 4, 0, 1, 2]]).max() <= 1
    save(path / "a/z.png", np.zeros((6, 12, 3), np.uint8))
    assert load_dataset("folder", str(path), side=8).images.shape == (6, 8, 8, 3)
    with pytest.raises(InputError, match=r"z.png: found 12x6 pixels, expected a square"):
        load_dataset("folder", str(path))


def test_splits(folder):
    path, images = folder
    path = path.rename(path.parent / "train").parent
    (path / "test").mkdir()
    with pytest.raises(InputError, match="test: found no class folders, expected some"):
        load_dataset("folder", str(path), split="test")
    save(path / "test/b/1.png", images[4])
    train, test = (load_dataset("folder", str(path), split=split) for split in ("train", "test"))
    assert len(train.images) == 5
    assert np.array_equal(test.images, images[4:])
    assert test.labels.tolist() == [1]
    assert test.num_classes == 2
    assert np.array_equal(test.mean, train.mean)
    save(path / "test/c/1.png", images[4])
    with pytest.raises(InputError, match=r"test/c: found a class that .*train does not have"):
        load_dataset("folder", str(path), split="test")


def test_bad_folders_are_refused(folder, tmp_path):
    path, images = folder

    def refused(message, name=path, **arguments):
        with pytest.raises(InputError, match=message) as caught:
            load_dataset("folder", str(name), **arguments)
        assert len(str(caught.value).splitlines()) == 1

    refused("own: found no folder 'test' beside 'train'", split="test")
    refused("nothing, expected a folder of images", tmp_path / "missing")
    refused("a file, expected a folder of images", path / "readme.txt")
    refused("a: found 0 class folders, expected at least 2", path / "a")
    refused("data.side: found 5, expected a multiple of 4", side=5)
    refused("data.side: found -4, expected a multiple of 4", side=-4)
    (path / "empty").mkdir()
    refused("empty: found no images, expected those of a class")
    (path / "empty/sub").mkdir()
    refused("sub: not a readable image")
    (path / "empty/sub").rmdir()
    (path / "empty/text.png").write_text("just text")
    refused("text.png: not a readable image")
    content = (path / "a/x.png").read_bytes()
    for cut in (0, 20, 60, len(content) // 2):
        (path / "empty/text.png").write_bytes(content[:cut])
        refused("text.png: not a readable image")
    save(path / "empty/text.png", images[0].astype(np.uint16)[..., 0] * 256)
    refused("text.png: found pixels of mode I;16, expected 8 bits a channel")
    save(path / "empty/text.png", np.zeros((12, 12, 3), np.uint8))
    refused("text.png: found 12x12 pixels, expected 8x8 as the first image")


def test_only_a_folder_is_resized():
    with pytest.raises(InputError, match=r"data.side: found 8, expected 0 \(only a folder"):
        load_dataset("digits", side=8)
