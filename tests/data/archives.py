"""Small archives in the formats in which CIFAR, STL-10 and ImageNet are really distributed."""

import io
import pathlib
import tarfile

import numpy as np

from tests.data.images import encode, photo

SYNSETS = ("n01440764", "n01443537", "n15075141")  # the first two classes of ImageNet, and the last


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Puts one file into a tar archive."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def cifar(path: pathlib.Path, classes: int, images: np.ndarray, labels: np.ndarray) -> None:
    """The binary version of CIFAR-10 or CIFAR-100: one byte of label, or two, then three planes of 32x32.

    Five sixths of the images make the training files, the others the test file.
    """
    names = "".join(f"class {i}\n" for i in range(classes)).encode()
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), 3072)
    coarse = [(labels // 5)[:, None].astype(np.uint8)] if classes == 100 else []
    rows = np.concatenate([*coarse, labels[:, None].astype(np.uint8), planes], axis=1)
    sixths = [part.tobytes() for part in np.split(rows, 6)]
    with tarfile.open(path, "w:gz") as archive:
        if classes == 10:
            add(archive, "cifar-10-batches-bin/batches.meta.txt", names + b"\n")
            for i, part in enumerate(sixths[:5]):
                add(archive, f"cifar-10-batches-bin/data_batch_{i + 1}.bin", part)
            add(archive, "cifar-10-batches-bin/test_batch.bin", sixths[5])
        else:
            add(archive, "cifar-100-binary/fine_label_names.txt", names)
            add(archive, "cifar-100-binary/coarse_label_names.txt", names[: names.index(b"class 20")])
            add(archive, "cifar-100-binary/train.bin", b"".join(sixths[:5]))
            add(archive, "cifar-100-binary/test.bin", sixths[5])


def stl10(path: pathlib.Path, images: np.ndarray, labels: np.ndarray) -> None:
    """STL-10: planes of 96x96, column by column, and labels from 1; the last third makes the test files."""
    third = len(images) // 3
    planes = images.transpose(0, 3, 2, 1)
    with tarfile.open(path, "w:gz") as archive:
        add(archive, "stl10_binary/class_names.txt", "".join(f"class {i}\n" for i in range(10)).encode())
        for split, part in (("train", slice(0, -third)), ("test", slice(-third, None))):
            add(archive, f"stl10_binary/{split}_X.bin", planes[part].tobytes())
            add(archive, f"stl10_binary/{split}_y.bin", (labels[part] + 1).astype(np.uint8).tobytes())
        add(archive, "stl10_binary/unlabeled_X.bin", planes[:2].tobytes())


def imagenet(directory: pathlib.Path, each: int) -> None:
    """ILSVRC2012's training archive, a tar of one tar a class, and its validation archive, one tar of all images.

    One of the training images is, like 22 of the real ones, in CMYK under the name of one of these.
    """
    with tarfile.open(directory / "ILSVRC2012_img_train.tar", "w") as archive:
        for number, synset in enumerate(SYNSETS):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as images:
                for i in range(each):
                    picture = photo(90 + 7 * i, 70 + 11 * number, i % 2)
                    add(images, f"{synset}_{i}.JPEG", encode(picture, "JPEG", quality=90))
                if number == 1:
                    add(images, "n01739381_1309.JPEG", encode(photo(80, 60).convert("CMYK"), "JPEG"))
            add(archive, f"{synset}.tar", inner.getvalue())
    with tarfile.open(directory / "ILSVRC2012_img_val.tar", "w") as archive:
        for i in range(1, 5):
            add(archive, f"ILSVRC2012_val_{i:08d}.JPEG", encode(photo(100, 60 + i), "JPEG"))
