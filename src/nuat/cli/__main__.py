"""python -m nuat.cli."""

from nuat.cli import main

main()
