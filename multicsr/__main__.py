"""`python -m multicsr`: the command line, as the console script `multicsr`."""

from multicsr.cli.main import main

if __name__ == "__main__":
    main()
