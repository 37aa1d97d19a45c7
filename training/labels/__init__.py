"""Lakes drawn by hand on real scenes; see README.md beside it."""

from training.labels.reading import labelled_images, read_annotations, read_labels

__all__ = ["labelled_images", "read_annotations", "read_labels"]
