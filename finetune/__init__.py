"""Fine-tuning for retrieval: splits by molecule, batches with positives and hard negatives, contrastive losses."""
