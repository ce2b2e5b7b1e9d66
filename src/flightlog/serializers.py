"""Serializers, under the names that users know: ``from flightlog.serializers import JSONSerializer``."""

from flightlog.engine.serializers import CompressedSerializer, JSONSerializer, PickleSerializer, Serializer

__all__ = ["CompressedSerializer", "JSONSerializer", "PickleSerializer", "Serializer"]
