"""Small encoded images of every kind that the readers must take or refuse."""

import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images


def photo(width: int, height: int, number: int = 1) -> Image.Image:
    """One of scikit-learn's two photographs, scaled."""
    return Image.fromarray(load_sample_images().images[number]).resize((width, height))


def encode(image: Image.Image, kind: str, **options) -> bytes:
    """The bytes of a JPEG, PNG or WEBP file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_alpha(image: Image.Image) -> Image.Image:
    """The image behind a gradient of transparency."""
    alpha = np.linspace(0, 255, image.width * image.height).astype(np.uint8).reshape(image.height, image.width)
    image = image.convert("RGBA")
    image.putalpha(Image.fromarray(alpha))
    return image


PHOTO = photo(120, 80)
GOOD = {
    "photo.jpg": encode(PHOTO, "JPEG", quality=95),
    "odd.jpeg": encode(photo(97, 61), "JPEG", quality=95, subsampling=0),
    "progressive.jpg": encode(PHOTO, "JPEG", progressive=True),
    "gray.jpg": encode(PHOTO.convert("L"), "JPEG"),
    "cmyk.jpg": encode(PHOTO.convert("CMYK"), "JPEG", quality=95),
    "row.png": encode(photo(50, 1), "PNG"),
    "row.jpg": encode(photo(50, 1), "JPEG"),
    "alpha.png": encode(with_alpha(PHOTO), "PNG"),
    "gray alpha.png": encode(with_alpha(PHOTO).convert("LA"), "PNG"),
    "colors.png": encode(PHOTO.quantize(16), "PNG"),
    "bilevel.PNG": encode(PHOTO.convert("1"), "PNG"),
    "lossy.webp": encode(PHOTO, "WEBP"),
    "lossless.webp": encode(PHOTO, "WEBP", lossless=True),
    "alpha.webp": encode(with_alpha(PHOTO), "WEBP", lossless=True, exact=True),
    "animation.webp": encode(PHOTO, "WEBP", save_all=True, append_images=[PHOTO.rotate(9)]),
}
BROKEN = {
    "truncated.jpg": GOOD["photo.jpg"][:1500],
    "truncated.png": GOOD["alpha.png"][:-300],
    "truncated.webp": GOOD["lossy.webp"][:-300],
    "header.jpg": GOOD["photo.jpg"][:30],
    "header.png": GOOD["alpha.png"][:10],
    "empty.jpg": b"",
    "text.png": b"This is no image.",
    "bitmap.jpg": encode(PHOTO, "BMP"),
}
