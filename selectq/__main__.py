"""`python -m selectq`: the command line, wherever the script `selectq` is not on the path."""

from selectq.cli import _main

if __name__ == "__main__":
    _main()
