"""Photos come in upright, 8-bit sRGB, whatever they were stored as."""

import numpy as np
import pytest
from PIL import Image, ImageCms

from capture.errors import MediaError
from capture.photo import read_photo, write_photo


def corner_picture() -> np.ndarray:
    """Red at the top left, grey elsewhere: tells which way is up."""
    image = np.full((24, 32, 3), 100, np.uint8)
    image[:12, :16] = (250, 10, 10)
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_in_upright(tmp_path, orientation):
    upright = Image.fromarray(corner_picture())
    undo = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    stored = upright.transpose(undo) if undo is not None else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.png"
    stored.save(path, exif=exif)
    assert np.array_equal(read_photo(path).image, corner_picture())


def test_colours_of_another_profile_become_srgbs(tmp_path):
    """By sRGB's own profile, its red and green exchanged: a picture with these exchanged as well is what it was."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"\0\0\0\0"), (b"gXYZ", b"rXYZ"), (b"\0\0\0\0", b"gXYZ")):
        at = profile.index(old, 128)
        profile = profile[:at] + new + profile[at + 4 :]
    profile = profile.replace("sRGB".encode("utf-16-be"), "odd ".encode("utf-16-be")).replace(b"sRGB", b"odd ")
    stored = Image.fromarray(np.ascontiguousarray(corner_picture()[..., [1, 0, 2]]))
    for name, mode in (("photo.png", "RGB"), ("alpha.png", "RGBA"), ("photo.jpg", "RGB")):
        stored.convert(mode).save(tmp_path / name, icc_profile=profile, quality=100, subsampling=0)
        assert np.abs(read_photo(tmp_path / name).image.astype(int) - corner_picture()).max() <= 12, name
    stored.save(tmp_path / "broken.png", icc_profile=profile[:200])
    assert np.array_equal(read_photo(tmp_path / "broken.png").image, np.asarray(stored))


def test_sixteen_bits_are_scaled_not_cut(tmp_path):
    grey = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    image = read_photo(tmp_path / "grey.png").image
    assert image.shape == (64, 64, 3)
    assert np.abs(image[..., 0].astype(int) - np.round(grey / 257).astype(int)).max() <= 1


def test_cmyk_and_palette_become_rgb(tmp_path):
    Image.fromarray(corner_picture()).convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    assert np.abs(read_photo(tmp_path / "c.jpg").image[4, 4].astype(int) - (250, 10, 10)).max() < 25
    Image.fromarray(corner_picture()).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    assert np.abs(read_photo(tmp_path / "p.png").image[4, 4].astype(int) - (250, 10, 10)).max() < 12


def test_transparent_parts_lie_on_mid_grey(tmp_path):
    rgba = np.dstack([corner_picture(), np.full((24, 32), 255, np.uint8)])
    rgba[12:, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    image = read_photo(tmp_path / "a.png").image
    assert np.array_equal(image[4, 4], (250, 10, 10))
    assert np.array_equal(image[20, 4], (128, 128, 128))


def test_linear_pictures_are_encoded(tmp_path):
    import cv2
    import OpenEXR

    linear = np.full((8, 8, 3), 0.2140, np.float32)  # sRGB 0.5
    cv2.imwrite(str(tmp_path / "a.hdr"), linear)
    assert np.abs(read_photo(tmp_path / "a.hdr").image.astype(int) - 128).max() <= 1
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, {"RGB": linear}).write(
        str(tmp_path / "a.exr")
    )
    assert np.abs(read_photo(tmp_path / "a.exr").image.astype(int) - 128).max() <= 1


def test_a_cut_off_photo_is_refused_in_one_line(tmp_path):
    path = tmp_path / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(path)
    (tmp_path / "cut.jpg").write_bytes(path.read_bytes()[:3000])
    with pytest.raises(MediaError, match="cut.jpg") as caught:
        read_photo(tmp_path / "cut.jpg")
    assert "\n" not in str(caught.value)


def test_writing_leaves_nothing_half_done(tmp_path):
    with pytest.raises(MediaError):
        write_photo(tmp_path / "out.xyz", corner_picture())
    with pytest.raises(MediaError):
        write_photo(tmp_path / "none" / "out.png", corner_picture())
    write_photo(tmp_path / "out.png", corner_picture())
    assert np.array_equal(read_photo(tmp_path / "out.png").image, corner_picture())
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]
