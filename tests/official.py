"""Small files in the official forms of CIFAR and downsampled ImageNet."""

import io
import pickle
import tarfile
import zipfile

import numpy as np


class Python2Pickler(pickle._Pickler):
    """Writes protocol 2 as Python 2's cPickle did, with bytes for str and old NumPy's names."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_bytes(self, content):
        self.write(pickle.BINSTRING + len(content).to_bytes(4, "little") + content)
        self.memoize(content)

    dispatch[bytes] = save_bytes

    def save_str(self, text):
        self.save_bytes(text.encode("latin1"))

    dispatch[str] = save_str

    def reducer_override(self, value):
        # What NumPy 1.x gave: flags of a dtype are numbers.
        if isinstance(value, np.dtype):
            _, (code, *_), state = value.__reduce__()
            return np.dtype, (code, 0, 1), state
        return NotImplemented


def python2_pickle(content):
    """A batch as the official CIFAR pickles have it."""
    file = io.BytesIO()
    Python2Pickler(file, 2).dump(content)
    return file.getvalue().replace(b"numpy._core.", b"numpy.core.")


def pixels_of(images):
    """Images `[M, H, H, 3]` as rows of one channel after the other."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def records(images, *labels):
    """Images as the binary form has them: bytes of labels, then pixels."""
    columns = [np.asarray(values, np.uint8)[:, None] for values in labels]
    return np.concatenate([*columns, pixels_of(images)], axis=1).tobytes()


def cifar_pickle(images, labels, key="labels"):
    names = [b"%d.png" % i for i in range(len(images))]
    batch = {
        b"data": pixels_of(images),
        key.encode(): [int(label) for label in labels],
        b"batch_label": b"a batch",
        b"filenames": names,
    }
    return python2_pickle(batch)


def write_folder(path, files):
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def write_tar(path, files, folder):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
