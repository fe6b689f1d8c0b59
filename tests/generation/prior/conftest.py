"""The photograph that scikit-image carries, prepared once, and its prior."""

from __future__ import annotations

import pytest
import skimage.data
from PIL import Image

from dp360.generation.portrait import Portrait, prepare_portrait
from dp360.generation.prior import HeadPrior, build_head_prior


@pytest.fixture(scope="session")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Portrait:
    path = tmp_path_factory.mktemp("portrait") / "astronaut.png"
    Image.fromarray(skimage.data.astronaut()).save(path)
    return prepare_portrait(path)


@pytest.fixture(scope="session")
def prior(portrait: Portrait) -> HeadPrior:
    return build_head_prior(portrait)
