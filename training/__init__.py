"""Patches, folds and fine-tuning (built by a later issue)."""
