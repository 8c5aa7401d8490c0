"""All metrics of a release computed together against real images."""
