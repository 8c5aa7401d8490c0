"""Charts, tables, grids of images, text for Markdown."""
