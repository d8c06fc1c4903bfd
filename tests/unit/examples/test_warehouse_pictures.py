"""Pictures: always the same, really resized, really read."""

import io

import pytest
from PIL import Image

from examples.warehouse.warehouse.pictures import SIZE, WIDTHS, fetch, read_details, resize


def test_a_name_means_one_picture() -> None:
    """The camera store gives the same bytes for the same name, others for another."""
    assert fetch.__wrapped__("a.jpg") == fetch("a.jpg") != fetch("b.jpg")
    assert 5_000 < len(fetch("a.jpg")) < 100_000


def test_resized_pictures_are_jpegs_of_the_usual_widths() -> None:
    """Each can be decoded, has its width, and keeps the proportions."""
    for width, data in resize(fetch("a.jpg")).items():
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "JPEG"
            assert picture.size == (width, round(SIZE[1] * width / SIZE[0]))
    assert set(resize(fetch("a.jpg"))) == set(WIDTHS)


def test_a_resized_picture_looks_like_its_original() -> None:
    """Shrunk to a few pixels, both have nearly the same colours."""
    data = resize(fetch("a.jpg"))[WIDTHS[0]]
    with Image.open(io.BytesIO(fetch("a.jpg"))) as original, Image.open(io.BytesIO(data)) as smaller:
        pairs = zip(original.resize((4, 3)).tobytes(), smaller.resize((4, 3)).tobytes(), strict=True)
        assert max(abs(one - other) for one, other in pairs) < 12


def test_exif_says_what_the_camera_wrote() -> None:
    """Camera, time, exposure and size come from the file itself."""
    details = read_details(fetch("a.jpg"))
    assert details.camera.startswith("Shelf camera ")
    assert details.taken_at.startswith("2026:01:")
    assert 0 < details.exposure_s < 0.1
    assert (details.width, details.height) == SIZE


def test_a_picture_without_exif_is_told_apart() -> None:
    """What a camera never wrote is a KeyError, so the worker can reject the task."""
    with pytest.raises(KeyError):
        read_details(resize(fetch("a.jpg"))[WIDTHS[-1]])
