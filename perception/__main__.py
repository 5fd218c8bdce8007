"""``python -m perception``: the same as the ``perception`` command."""

from perception.cli import main

if __name__ == "__main__":
    main()
