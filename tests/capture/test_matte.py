"""Who is person and who is background in one picture."""

from __future__ import annotations

import numpy as np
import pytest

from capture.matte import SelfieMatte, sharpened


@pytest.mark.parametrize("quick", [False, True])
def test_a_matte_is_a_mask_with_the_pictures_outlines(portrait, quick):
    with SelfieMatte(quick) as mattes:
        mask = mattes.mask(portrait)
        assert mask.ndim == 2 and 0 <= mask.min() and mask.max() <= 1
        assert np.array_equal(mattes(portrait), sharpened(mask, portrait, quick))
