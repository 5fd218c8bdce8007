"""Pictures with labels to train on: sets, batches, augmentation."""
