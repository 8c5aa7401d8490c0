"""The parts of a page, the page, and the same for terminals and as data."""
