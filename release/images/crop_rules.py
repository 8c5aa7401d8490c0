"""The rules by which images of any size become square views. Commands name them, so nothing here is
slow to import."""

from typing import Literal

CropRule = Literal["center-crop", "pad"]
# As they are recorded. center-crop without a number rounded odd sides up where it halved.
RECORDED_RULES: dict[CropRule, str] = {"center-crop": "center-crop-2", "pad": "pad"}
MOST_SIDE = 8192  # pixels of a view's side: 200 MB an image
