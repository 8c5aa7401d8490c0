"""Training recipes of classifiers."""
