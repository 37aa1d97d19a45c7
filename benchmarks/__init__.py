"""Speed and memory of lakescale beside named peers; see README.md."""
