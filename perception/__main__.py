"""``python -m perception``: the same as the ``perception`` command."""

from perception.commands.main import main

if __name__ == "__main__":
    main()
