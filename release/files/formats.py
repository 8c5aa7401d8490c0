"""Names of what files hold. Recipes and commands name them, so nothing here is slow to import."""

from typing import Literal

ShardFormat = Literal["parquet", "arrow"]
Encoding = Literal["webp-lossless", "png", "jpeg"]  # of an image
