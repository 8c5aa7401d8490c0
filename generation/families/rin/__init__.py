"""Recurrent Interface Network (Jabri et al. 2022, arXiv 2212.11972), also with the noise schedule
and input scaling of Chen 2023 (arXiv 2301.10972), which are settings of its [stage]."""
