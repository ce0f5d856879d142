"""``python -m freesound_tagging`` is the command freesound-tagging."""

import sys

from freesound_tagging.cli import main

sys.exit(main())
