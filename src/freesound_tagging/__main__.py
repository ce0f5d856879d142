"""``python -m freesound_tagging`` is the command freesound-tagging."""

from freesound_tagging.cli import main

raise SystemExit(main())
