"""Training on labels of any kind (classes, yes/no questions, numbers): labels, heads, calibration, predictions."""
