"""What makes a trained model public: the evaluation on its card, and its upload to a hub."""
