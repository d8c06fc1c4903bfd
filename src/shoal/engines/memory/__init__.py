"""An engine of values: shipped, so that control can be tried, tested and simulated without a process.

Law: no thread, no sleep, no clock but the caller's.
"""

from shoal.engines.memory.behaviour import Behaviour
from shoal.engines.memory.engine import MemoryEngine
from shoal.engines.memory.platform import MemoryPlatform

__all__ = ["Behaviour", "MemoryEngine", "MemoryPlatform"]
