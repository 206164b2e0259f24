"""What colour skin is, from two pigments: melanin in the epidermis, haemoglobin in the dermis below it.

Both layers absorb and scatter after Kubelka and Munk: the epidermis is thin, the dermis has no end, and light goes to and fro
between them (Doi & Tominaga 2003; with one pigment in each as in Claridge et al. 2003; as a face model: Alotaibi & Smith 2017):
    R = R_e + T_e^2 R_d / (1 - R_e R_d)
Absorption and scattering are those of Jacques 1998 ("Skin optics summary") and Prahl's tabulation of haemoglobin. No measured
face went into it, so it is free for any use.

Convention: wavelengths in nm, coefficients in 1/mm, colours linear sRGB under D65, where a perfect reflector is (1, 1, 1).
"""

from __future__ import annotations

from functools import cache

import numpy as np

WAVELENGTHS = np.arange(400, 701, 10.0)
# CIE standard illuminant D65 at the wavelengths
_D65 = np.array([
    82.75, 91.49, 93.43, 86.68, 104.86, 117.01, 117.81, 114.86, 115.92, 108.81, 109.35, 107.80, 104.79, 107.69, 104.41, 104.05,
    100.00, 96.33, 95.79, 88.69, 90.01, 89.60, 87.70, 83.29, 83.70, 80.03, 80.21, 82.28, 78.28, 69.72, 71.61,
])  # fmt: skip
# molar extinction of haemoglobin with and without oxygen, 1/(cm M) (S. Prahl, omlc.org)
_OXY = np.array([
    266232, 466840, 480360, 246072, 102580, 62816, 44480, 33209, 26629, 23684, 20933, 20035, 24202, 39957, 53236, 43016, 32613,
    44496, 50104, 14401, 3200, 1506, 942, 610, 442, 368, 320, 294, 278, 276, 290,
])  # fmt: skip
_DEOXY = np.array([
    223296, 303956, 407560, 528600, 413280, 103292, 23389, 16156, 14550, 16684, 20862, 25774, 31590, 39036, 46592, 53412, 53788,
    45072, 37020, 28324, 14677, 9444, 6510, 5149, 4345, 3750, 3227, 2795, 2408, 2052, 1794,
])  # fmt: skip
_EPIDERMIS = 0.06  # mm
_OXYGEN = 0.75
_HAEMOGLOBIN = 2.303 * 150 / 64500 / 10  # molar extinction to 1/mm of whole blood (150 g/l)
MELANIN = (0.015, 0.42)  # share of the epidermis, the lightest to the darkest (Jacques 1998)


def _lobe(x: np.ndarray, height: float, centre: float, below: float, above: float) -> np.ndarray:
    return height * np.exp(-0.5 * ((x - centre) * np.where(x < centre, below, above)) ** 2)


@cache
def _to_linear_srgb() -> np.ndarray:
    """31 x 3: a reflectance spectrum under D65 to linear sRGB (CIE 1931 by the fit of Wyman, Sloan & Shirley 2013)."""
    w = WAVELENGTHS
    x = _lobe(w, 0.362, 442.0, 0.0624, 0.0374) + _lobe(w, 1.056, 599.8, 0.0264, 0.0323) - _lobe(w, 0.065, 501.1, 0.0490, 0.0382)
    y = _lobe(w, 0.821, 568.8, 0.0213, 0.0247) + _lobe(w, 0.286, 530.9, 0.0613, 0.0322)
    z = _lobe(w, 1.217, 437.0, 0.0845, 0.0278) + _lobe(w, 0.681, 459.0, 0.0385, 0.0725)
    weights = np.stack([x, y, z], 1) * _D65[:, None]
    matrix = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
    rgb = weights @ matrix.T
    return rgb / rgb.sum(0)  # white is white in spite of the fit's and the table's small errors


def skin_colour(melanin: np.ndarray, blood: np.ndarray) -> np.ndarray:
    """... x 3 linear sRGB albedo of skin.

    Args:
        melanin: ..., share of the epidermis that is melanosomes, see `MELANIN`.
        blood: ..., share of the dermis that is blood, about 0.01 to 0.12.
    """
    w = WAVELENGTHS
    melanin, blood = np.asarray(melanin)[..., None], np.asarray(blood)[..., None]
    tissue = 0.0244 + 8.53 * np.exp(-(w - 154) / 66.2)  # bloodless skin without pigment (Saidi 1992)
    epidermis = melanin * 6.6e10 * w**-3.33 + (1 - melanin) * tissue
    haemoglobin = _HAEMOGLOBIN * (_OXYGEN * _OXY + (1 - _OXYGEN) * _DEOXY)
    dermis = blood * haemoglobin + (1 - blood) * tissue
    scattering = 0.75 * (2e4 * w**-1.5 + 2e11 * w**-4.0)  # Kubelka and Munk's S of the reduced scattering: Mie and Rayleigh
    ratio = 2 * dermis / scattering
    below = 1 + ratio - np.sqrt(ratio * ratio + 2 * ratio)
    a = 1 + 2 * epidermis / scattering
    b = np.sqrt(a * a - 1)
    through = b * scattering * _EPIDERMIS
    share = a * np.sinh(through) + b * np.cosh(through)
    above, passed = np.sinh(through) / share, b / share
    spectrum = above + passed**2 * below / (1 - above * below)
    return np.maximum(spectrum @ _to_linear_srgb(), 1e-4)
