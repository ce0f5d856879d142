"""``python -m freesound_tagging`` is the command freesound-tagging."""

import sys

from freesound_tagging.cli import main

status = main()
# Where Ctrl-C meets an exec of text, as dataclasses use it while modules load, CPython remembers
# that and ends this process by SIGINT in place of its exit status. The next exec makes it forget.
exec("")
sys.exit(status)
