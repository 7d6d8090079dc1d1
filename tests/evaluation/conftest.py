"""The tiny world of training, to be judged."""

from tests.training.conftest import _own_cache_and_thread, basins, foundation

__all__ = ["_own_cache_and_thread", "basins", "foundation"]
