"""The evaluation that cannot be flattered: tasks, look-ups to beat, metrics, intervals, report."""
