"""How a classifier does on images unlike those it learned from."""
