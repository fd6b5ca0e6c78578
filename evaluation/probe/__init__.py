"""How good is a frozen encoder: what linear heads read off its embeddings, and how it searches without training."""
