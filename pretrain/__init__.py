"""Self-supervised pretraining by masked-peak modelling, and the training loop that fine-tuning shares."""
