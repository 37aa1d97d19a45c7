"""``python -m lakescale`` is the command ``lakescale``."""

from pipelines.cli import main

if __name__ == "__main__":
    main()
