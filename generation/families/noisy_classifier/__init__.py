"""Classifiers of noisy images, by whose gradient ADM-G is guided (Dhariwal & Nichol 2021)."""
