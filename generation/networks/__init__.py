"""Networks on a device: placement, precision, finite weights, timm classifiers."""
