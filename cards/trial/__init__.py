"""A trial: would generated images help with these? From a folder of images to one page."""
