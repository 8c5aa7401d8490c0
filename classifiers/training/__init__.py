"""A training of a classifier, its predictions, and what several say together."""
