"""Gaussian mixtures in JAX.

Pure functions for the density, the E-step and the M-step; thousands of restarts as one program;
results that say how they came about. Start with ``jgmm.fit``.

The public names are those of ``__init__.pyi``. Each is imported when it is first used, so that a
command line that only prints help stays instant.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, _public = lazy_loader.attach_stub(__name__, __file__)
# ``from jgmm import *`` works without scikit-learn and matplotlib.
__all__ = [name for name in _public if name not in ("estimators", "plot")]
