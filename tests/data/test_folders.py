import io
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from refusals import refusal

from epe_nas_jax import InputError
from epe_nas_jax.data.datasets import has_test_split, load_dataset
from epe_nas_jax.data.folders import images_below


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
    assert own.class_names == ("a", "b")
    assert own.num_classes == 2
    assert np.allclose(own.mean, images.mean((0, 1, 2)) / 255)


def test_images_are_found_in_folders_of_any_depth(folder):
    path, images = folder
    save(path / "b/deep/er/0.png", images[0])
    save(path / "top.JPG", images[0])
    save(path / ".hidden/0.png", images[0])
    save(path / "__MACOSX/0.png", images[0])
    (path / "b/deep/back").symlink_to(path)
    (path / "b/broken.png").write_text("no image, but called one")
    names = [file.relative_to(path).as_posix() for file in images_below(path)]
    expected = ["a/x", "a/y", "b/1", "b/2", "b/3", "b/broken", "b/deep/er/0"]
    assert names == [*(f"{name}.png" for name in expected), "top.JPG"]


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    for path, found in (
        (tmp_path, "found no images"),
        (tmp_path / "nowhere", "found nothing"),
        (tmp_path / "notes.txt", "found a file"),
    ):
        assert f"{path}: {found}, expected" in refusal(lambda path=path: images_below(path))


def test_any_format_and_mode_of_8_bits(folder):
    path, _ = folder
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    save(path / "c/grey.png", grey)
    save(path / "c/photo.jpg", np.full((8, 8, 3), 200, np.uint8))
    save(path / "c/third.mpo", np.full((8, 8, 3), 200, np.uint8))
    Image.fromarray(grey).convert("P").save(path / "c/palette.gif")
    save(path / "c/see_through.png", np.dstack([grey, grey, grey, grey]))
    own = load_dataset("folder", str(path))
    found = own.images[own.labels == 2]
    assert len(found) == 5
    for image in (found[0], found[1]):
        assert np.array_equal(image, np.dstack([grey] * 3))
    # Shades of alpha on white, by the formula, to a rounding.
    alpha = grey[..., None] / 255
    expected = np.repeat(alpha * grey[..., None] + (1 - alpha) * 255, 3, axis=-1)
    assert np.abs(found[3] - expected).max() <= 1
    assert np.abs(found[[2, 4]].astype(int) - 200).max() <= 2  # JPEG rounds.


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

    refused("own: found no folder 'test' or 'valid' beside 'train'", split="test")
    refused("nothing, expected a folder of images", tmp_path / "missing")
    refused("a file, expected a folder of images", path / "readme.txt")
    refused("a: found 0 class folders, expected at least 2", path / "a")
    refused("data.side: found 5, expected a multiple of 4", side=5)
    refused("data.side: found -4, expected a multiple of 4", side=-4)
    (path / "empty").mkdir()
    (path / "empty/labels.txt").write_text("of no image")
    refused("empty: found no images, expected those of a class")
    (path / "empty/sub").mkdir()
    refused("sub: found a folder in 'empty', expected the images of a class")
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


GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)


@pytest.mark.parametrize("turned", range(2, 9))
def test_a_picture_stands_as_its_camera_was_held(folder, turned):
    path, _ = folder
    lying = np.zeros((8, 8, 3), np.uint8)
    lying[:4, :2] = 255
    # What EXIF 2.3 says of where the first row and the first column of the pixels are seen.
    upright = {
        2: lying[:, ::-1],
        3: lying[::-1, ::-1],
        4: lying[::-1],
        5: lying.transpose(1, 0, 2),
        6: lying.transpose(1, 0, 2)[:, ::-1],
        7: lying[::-1, ::-1].transpose(1, 0, 2),
        8: lying.transpose(1, 0, 2)[::-1],
    }[turned]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turned
    for name in ("c/photo.png", "c/photo.tif"):
        save(path / name, lying, exif=exif)
    found = load_dataset("folder", str(path))
    assert np.array_equal(found.images[-2:], [upright, upright])


def see_through():
    """A transparent green pixel, an opaque blue one and a red one that half shows."""
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[..., 1] = 255
    rgba[0, 0] = (0, 0, 255, 255)
    rgba[0, 1] = (255, 0, 0, 128)
    return Image.fromarray(rgba)


@pytest.mark.parametrize("name", ["x.png", "x.webp", "palette.png", "colour.png", "grey.png"])
def test_what_is_transparent_stands_on_white(folder, name):
    path, _ = folder
    (path / "c").mkdir()
    picture = see_through()
    options = {"lossless": True, "exact": True} if name == "x.webp" else {}
    expected = {(0, 0): (0, 0, 255), (0, 1): (255, 127, 127), (5, 5): (255, 255, 255)}
    if name == "palette.png":
        # A palette whose first colours have alpha, as web pages have them.
        picture = Image.fromarray(GREY % 3).convert("P")
        picture.putpalette([0, 255, 0, 0, 0, 255, 255, 0, 0])
        options = {"transparency": bytes([0, 255, 128])}
        expected = {(0, 0): (255, 255, 255), (0, 1): (0, 0, 255), (0, 2): (255, 127, 127)}
    elif name == "colour.png":
        picture = picture.convert("RGB")
        options = {"transparency": (0, 255, 0)}
        expected = {(0, 0): (0, 0, 255), (0, 1): (255, 0, 0), (5, 5): (255, 255, 255)}
    elif name == "grey.png":
        picture = Image.fromarray(GREY)
        options = {"transparency": 5}
        expected = {(0, 4): (4, 4, 4), (0, 5): (255, 255, 255), (0, 6): (6, 6, 6)}
    picture.save(path / "c" / name, **options)
    found = load_dataset("folder", str(path)).images[-1].astype(int)
    for pixel, colour in expected.items():
        assert np.abs(found[pixel] - colour).max() <= 1, pixel


def test_a_large_picture_prints_no_warning(folder):
    path, _ = folder
    (path / "c").mkdir()
    # More pixels than Pillow is silent about, in a file of some kilobytes.
    Image.new("1", (9_500, 9_500), 1).save(path / "c/large.png")
    found = load_dataset("folder", str(path), side=8)
    assert (found.images[-1] == 255).all()


def test_files_that_are_no_images_are_passed_over_and_counted_in_one_line(folder, caplog):
    path, images = folder
    for name in ("Thumbs.db", "desktop.ini", "labels.txt", "README", "scan.h5", ".hidden.png"):
        (path / "a" / name).write_bytes(b"no image")
    (path / "b/1.png").rename(path / "b/without_ending")
    own = load_dataset("folder", str(path))
    assert np.array_equal(own.images, images[[3, 4, 1, 2, 0]])
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"{path}: passed over 6 files that are no images, such as README"]
    caplog.clear()
    save(path / "beside.png", images[0])
    load_dataset("folder", str(path))
    assert caplog.records[-1].getMessage() == (
        f"{path}: passed over 1 file that is in no class folder, such as beside.png"
    )


@pytest.mark.parametrize("name", ["x.jpg", "x.JPEG", "x.png", "x.heic", "x.svg", "x.webp"])
def test_a_file_that_claims_to_be_an_image_and_is_none_is_an_error(folder, name):
    path, _ = folder
    (path / "a" / name).write_text("just text")
    with pytest.raises(InputError, match=f"{name}: not a readable image"):
        load_dataset("folder", str(path))


@pytest.mark.parametrize(
    "name",
    ["__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information", ".git"],
)
def test_folders_of_the_system_are_no_classes(folder, name):
    path, _ = folder
    for place in (path, path / "a"):
        save(place / name / "x.png", GREY)
    own = load_dataset("folder", str(path))
    assert own.num_classes == 2
    assert len(own.images) == 5


@pytest.mark.parametrize(
    ("train", "test", "line"),
    [
        ("train", "test", None),
        ("Train", "Test", None),
        ("training", "testing", None),
        ("TRAIN", "valid", "valid: used as the test split, which is missing"),
        ("train", "val", "val: used as the test split, which is missing"),
        ("train", "validation", "validation: used as the test split, which is missing"),
    ],
)
def test_splits_by_any_of_their_names(folder, caplog, train, test, line):
    path, images = folder
    root = path.parent / "split"
    root.mkdir()
    path.rename(root / train)
    (root / train / "readme.txt").unlink()
    save(root / test / "b/1.png", images[4])
    assert np.array_equal(load_dataset("folder", str(root)).images, images[[3, 4, 0, 1, 2]])
    assert has_test_split("folder", str(root))
    held_out = load_dataset("folder", str(root), split="test")
    assert np.array_equal(held_out.images, images[4:])
    assert held_out.labels.tolist() == [1]
    assert [record.getMessage() for record in caplog.records] == ([f"{root}/{line}"] * bool(line))


def test_a_test_split_is_taken_before_a_validation_split(folder, caplog):
    path, images = folder
    path = path.rename(path.parent / "train").parent
    save(path / "valid/a/1.png", images[0])
    save(path / "test/b/1.png", images[4])
    assert load_dataset("folder", str(path), split="test").labels.tolist() == [1]
    assert not caplog.records


def test_layouts_that_are_no_classes_say_what_to_type(folder):
    path, images = folder

    def refused(message, name=path, **arguments):
        with pytest.raises(InputError, match=message):
            load_dataset("folder", str(name), **arguments)

    refused(
        r"found 1 class folders, expected at least 2; \S*own has 2: data.path could be that",
        path.parent,
    )
    save(path / "a/inner/1.png", images[0])
    refused("inner: found a folder in class 'a', expected images")
    root = path.parent / "high"
    for name in ("cats/tabby", "cats/wild", "dogs/large"):
        save(root / name / "1.png", images[0])
    refused("tabby: found a folder in 'cats', expected the images of a class", root)
    (path / "a/inner/1.png").unlink()
    (path / "a/inner").rmdir()
    root = path.parent / "split"
    root.mkdir()
    path.rename(root / "train")
    save(root / "extra/1.png", images[0])
    refused("extra: found a folder beside 'train', expected 'test' or 'valid'", root)
    (root / "extra").rename(root / "TRAINING")
    refused("found 'TRAINING' and 'train', expected one", root)
    (root / "TRAINING").rename(root / "test")
    refused("test: found no class folders, expected some of 'train'", root, split="test")
    (root / "test/1.png").unlink()
    (root / "test/b").mkdir()
    refused("test: found no images, expected those of the test split", root, split="test")
    (root / "train").rename(root / "valid")
    refused("found '(test|valid)', expected a folder 'train' beside it", root)


def test_folders_of_images_may_be_called_as_splits_are(folder):
    path, _ = folder
    (path / "a").rename(path / "train")
    assert load_dataset("folder", str(path)).labels.tolist() == [0, 0, 0, 1, 1]


def test_only_regular_files_are_read(folder):
    path, _ = folder
    os.mkfifo(path / "a/pipe")
    os.mkfifo(path / "a/pipe.txt")
    assert len(load_dataset("folder", str(path)).images) == 5
    (path / "a/link.png").symlink_to(path / "b/1.png")
    assert len(load_dataset("folder", str(path)).images) == 6
    for name, target in (("a/pipe.png", None), ("a/device.png", "/dev/zero")):
        if target:
            (path / name).symlink_to(target)
        else:
            os.mkfifo(path / name)
        with pytest.raises(InputError, match="found a pipe or a device, expected an image"):
            load_dataset("folder", str(path))
        (path / name).unlink()
    (path / "a/lost.png").symlink_to(path / "nowhere")
    with pytest.raises(InputError, match=r"lost\.png: not a readable image"):
        load_dataset("folder", str(path))


def test_pixels_that_are_all_0_or_1_are_refused(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / name / "mask.png", GREY % 2)
    with pytest.raises(InputError, match=r"train split: found pixels that are all 0 or 1"):
        load_dataset("folder", str(tmp_path))


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_a_damaged_picture_is_read_or_refused(data):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    form = data.draw(st.sampled_from(["png", "jpeg", "gif", "tiff", "bmp", "webp"]))
    buffer = io.BytesIO()
    options = {"exif": exif} if form in ("png", "jpeg", "tiff", "webp") else {}
    Image.fromarray(np.dstack([GREY * 4] * 3)).save(buffer, form, **options)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("a", "b"):
            save(root / name / "1.png", GREY * 4)
        (root / f"b/2.{form}").write_bytes(content[: data.draw(st.integers(0, len(content)))])
        refusal(lambda: load_dataset("folder", folder, side=8))
