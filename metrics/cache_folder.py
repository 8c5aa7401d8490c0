"""Where features and reference statistics are kept, where no --cache says otherwise."""

from pathlib import Path

import platformdirs

CACHE = Path(platformdirs.user_cache_dir("synthetic-imagenet")) / "metrics"
