"""``python -m vsquant``."""

from vsquant.cli import main

main()
