"""sRGB at the edges, linear light inside: tables for 16-bit linear pictures (65535 is white)."""

from __future__ import annotations

import numpy as np


def _decode_table() -> np.ndarray:
    code = np.arange(256) / 255.0
    linear = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)  # IEC 61966-2-1
    return np.round(linear * 65535).astype(np.uint16)


def _encode_table() -> np.ndarray:
    linear = np.arange(65536) / 65535.0
    code = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(code * 255).astype(np.uint8)


DECODE = _decode_table()
ENCODE = _encode_table()


def to_linear16(srgb: np.ndarray) -> np.ndarray:
    """uint8 sRGB to uint16 linear; `to_srgb8` gives the same bytes back."""
    return DECODE[srgb]


def to_srgb8(linear16: np.ndarray) -> np.ndarray:
    """uint16 linear to uint8 sRGB."""
    return ENCODE[linear16]
