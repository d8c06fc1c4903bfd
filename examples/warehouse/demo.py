"""`make demo`: the warehouse under a spike of real traffic, with a replica killed in the middle, and a verdict.

Needs no root and leaves nothing behind. `python demo.py --help` names the options.
"""

import sys
from pathlib import Path

# A script's own directory is on the path, the repository (and with it the load generator, `bench`) is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.warehouse.warehouse_demo.show import main

if __name__ == "__main__":
    sys.exit(main())
