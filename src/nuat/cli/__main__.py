"""Run the command line with `python -m nuat.cli`."""

from nuat.cli import main

main()
