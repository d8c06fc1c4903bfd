"""What people write. Law: no I/O but reading the files that it is told to read."""

from shoal.spec.loading import Loaded, load
from shoal.spec.model import Fleet
from shoal.spec.origins import Origin, Origins

__all__ = ["Fleet", "Loaded", "Origin", "Origins", "load"]
