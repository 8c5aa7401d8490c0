"""LDM-4 in its authors' layout."""
