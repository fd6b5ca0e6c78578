"""The one model: a transformer over the peaks of a spectrum, as Hugging Face classes, and its input batches."""
