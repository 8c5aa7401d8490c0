"""Makes trained classifiers and their predictions: real, generated, or both."""
