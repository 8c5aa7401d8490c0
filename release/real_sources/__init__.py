"""Where real images come from: Fashion-MNIST's IDX files, folders, tars, data sets of the Hub.

A source gives, for each split, the images in a fixed order, each with a stable key, its label and
its original bytes, so that any stretch of it can be read by any process. One module a layout.
"""
