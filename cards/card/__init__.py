"""The dataset card of a release, for people and as Croissant."""
