"""Patches, folds and fine-tuning."""
