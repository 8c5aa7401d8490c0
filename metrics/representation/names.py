"""What evaluate-representation can be asked for, known before anything else is imported."""

FROZEN = ("linear_probe", "knn", "few_shot")
NAMES = (*FROZEN, "fine_tuning")
STEPS = 1000  # of a training of fine_tuning, by default
