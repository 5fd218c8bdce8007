"""The command line: one file a command, thin; what a person reads in the terminal."""
