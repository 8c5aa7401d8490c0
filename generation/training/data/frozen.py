"""Imported last by the process that loaders are forked from: what it holds is left out of garbage
collection, which would write to all of it, and so copy 100 MB for each loader."""

import atexit
import gc

from PIL import Image

Image.init()  # its plugins, which the first image would import
gc.collect()
gc.freeze()
atexit.register(gc.unfreeze)  # of that process alone, as its loaders end without: all is let go of
