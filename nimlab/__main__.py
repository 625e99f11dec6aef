"""Run the command line: `python -m nimlab` is the same as `nimlab`."""

from nimlab.cli import entry

if __name__ == "__main__":
    entry()
