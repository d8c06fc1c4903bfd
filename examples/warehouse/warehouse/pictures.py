"""Pictures of goods: fetched, resized, and read for what the camera says of them. Pure but for the processor time.

`fetch` stands for the camera store: it draws the picture that a name means, always the same one, with EXIF as a camera
writes it, so that the example needs no network and no files.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter
from PIL.ExifTags import IFD, Base

SIZE = (1200, 900)
WIDTHS = (640, 320, 96)


@dataclass(frozen=True, slots=True)
class Details:
    """What EXIF says. `taken_at` is local to the camera, in EXIF's form."""

    camera: str
    taken_at: str
    exposure_s: float
    width: int
    height: int


@lru_cache(maxsize=32)
def fetch(name: str) -> bytes:
    """The JPEG of this name, some tens of KB."""
    seed = zlib.crc32(name.encode())
    random = np.random.default_rng(seed)
    across, down = (np.linspace(0, 6.3, size)[:, None] for size in SIZE)
    channels = [np.sin(down * random.integers(1, 9)) @ np.cos(across * random.integers(1, 9)).T for _ in range(3)]
    noise = random.integers(0, 8, (SIZE[1], SIZE[0], 1), np.uint8)
    pixels = (127 + 90 * np.stack(channels, axis=-1)).astype(np.uint8) ^ noise
    exif = Image.Exif()
    exif[Base.Make] = "Shoal"
    exif[Base.Model] = f"Shelf camera {seed % 12:02d}"
    exif.get_ifd(IFD.Exif)[Base.DateTimeOriginal] = f"2026:01:{1 + seed % 28:02d} {seed % 24:02d}:{seed % 60:02d}:00"
    exif.get_ifd(IFD.Exif)[Base.ExposureTime] = 1 / (30 + seed % 200)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=70, exif=exif)
    return buffer.getvalue()


def resize(picture: bytes) -> dict[int, bytes]:
    """JPEGs of the usual widths, sharpened, in the picture's proportions."""
    with Image.open(io.BytesIO(picture)) as opened:
        original = opened.convert("RGB")
    thumbnails: dict[int, bytes] = {}
    for width in WIDTHS:
        height = max(1, round(original.height * width / original.width))
        smaller = original.resize((width, height), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        smaller.filter(ImageFilter.UnsharpMask(radius=2, percent=80)).save(buffer, "JPEG", quality=80)
        thumbnails[width] = buffer.getvalue()
    return thumbnails


def read_details(picture: bytes) -> Details:
    """What the camera wrote into the picture. Raises KeyError where it wrote nothing."""
    with Image.open(io.BytesIO(picture)) as opened:  # lazily: the pixels are never decoded
        exif = opened.getexif()
        inner = exif.get_ifd(IFD.Exif)
        return Details(
            camera=str(exif[Base.Model]),
            taken_at=str(inner[Base.DateTimeOriginal]),
            exposure_s=float(inner[Base.ExposureTime]),
            width=opened.width,
            height=opened.height,
        )
