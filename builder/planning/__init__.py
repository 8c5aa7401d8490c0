"""The recipe, and the plan that follows from it: pure functions."""
