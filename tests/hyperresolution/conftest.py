"""Makes the helpers beside the tests, and the plain implementation, importable."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "benchmarks" / "hyperresolution")]
