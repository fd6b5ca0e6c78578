"""What a learned score has to beat: rankers that see no peak, look-ups, and small networks."""
