"""What a training learns from: which images a step sees, in what order, decoded where and when."""
