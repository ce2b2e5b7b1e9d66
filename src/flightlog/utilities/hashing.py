"""`hash_objects`, for cache keys of one's own, under the name that it has in Prefect."""

from flightlog.engine.cache_policies import hash_objects

__all__ = ["hash_objects"]
