"""Makes scores: Fréchet distance, Inception Score and what else a release is judged by."""
