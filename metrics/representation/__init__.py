"""What the frozen features of a network are worth on other data sets."""
