"""Features of images: extractors, their cache, lists of images, mergeable states."""
