"""The command: runs rows and prints their table."""

from tests.faults.table import main

if __name__ == "__main__":
    main()
