"""Exemplars: the real images of its class that a first stage's sampling begins from.

Image number `index` of a class begins from exemplar number `index` mod per_class of it, which are
its first per_class images by id ("real guidance", He et al. 2023, arXiv 2210.07574).
"""
