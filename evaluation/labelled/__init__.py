"""How good a model of labels is: its test fold beside plain baselines, with intervals over molecules, and a report."""
