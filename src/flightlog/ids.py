"""Identity as something that is passed in: ids of events and runs, and the names that people read.

Ids are UUIDs of version 7 (RFC 9562, section 5.7) as 16 bytes. Sixty bits of the time, in units of
1/4096 ms, stand in front (method 3 of section 6.2), so ids sort by the moment they were made.
"""

import os
import threading
import time
import uuid
import weakref
from typing import Protocol

_TAIL = (1 << 62) - 1


class Ids(Protocol):
    """What the rest of Flightlog knows of identity and chance."""

    def new(self) -> bytes:
        """Return a new unique id, 16 bytes."""
        ...

    def slug(self) -> str:
        """Return a new name of two words for a run, such as ``brave-heron``."""
        ...

    def chance(self) -> float:
        """Return a random number, 0 or above and below 1."""
        ...


class RandomIds:
    """Ids from the system's clock and its source of randomness; safe for threads and after a fork.

    The last 62 bits begin at random in each process and grow by a random odd step: unique, and without a
    system call for each id. They are no secret.
    """

    def __init__(self) -> None:
        self._seed()
        if hasattr(os, "register_at_fork"):
            seed = weakref.WeakMethod(self._seed)
            os.register_at_fork(after_in_child=lambda: (method := seed()) and method())

    def _seed(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._tail = int.from_bytes(os.urandom(8), "big") & _TAIL
        self._step = int.from_bytes(os.urandom(7), "big") | 1

    def new(self) -> bytes:
        """Return a new UUID of version 7, 16 bytes, later than all before it in this process."""
        with self._lock:
            ticks = time.time_ns() * 4096 // 1_000_000
            if ticks <= self._last:
                ticks = self._last + 1
            self._last = ticks
            self._tail = tail = (self._tail + self._step) & _TAIL
        return ((ticks >> 12) << 80 | 7 << 76 | (ticks & 0xFFF) << 64 | 2 << 62 | tail).to_bytes(16, "big")

    def slug(self) -> str:
        """Return a name of two words, such as ``brave-heron`` (5,000 or so of them: not unique)."""
        chance = int.from_bytes(os.urandom(8), "big")
        return f"{ADJECTIVES[chance % len(ADJECTIVES)]}-{ANIMALS[(chance >> 32) % len(ANIMALS)]}"

    def chance(self) -> float:
        """Return a random number, 0 or above and below 1."""
        return int.from_bytes(os.urandom(6), "big") / (1 << 48)


def id_text(identifier: bytes) -> str:
    """Return an id in its usual form, such as ``01890a5d-ac96-774b-bcce-b302099a8057``."""
    digits = identifier.hex()  # four times as fast as by way of a UUID object
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def parse_id(identifier: str) -> bytes:
    """Return the 16 bytes of an id that is written in its usual form; ValueError if it is not one."""
    return uuid.UUID(identifier).bytes


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ADJECTIVES = _words(
    """
    able agile amber ample aqua astute azure bold brave bright brisk bronze calm candid careful
    cheerful clever copper coral cosmic crimson crisp curious daring deft diligent eager early
    earnest electric emerald fair fast fearless fine fleet fond frank free fresh gentle glad golden
    graceful grand green happy hardy helpful honest humble indigo ivory jade jolly keen kind large
    light lively loyal lucid lucky magnetic mellow merry mighty modest neat nimble noble olive opal
    patient placid polite proud quick quiet rapid ready robust rosy ruby scarlet sharp silent silver
    sincere smart smooth snowy solar solid steady sturdy sunny swift tidy topaz true valiant velvet
    vivid warm wise witty zesty
    """
)
ANIMALS = _words(
    """
    albatross ant antelope badger bat bear beaver bee beetle bison bobcat buffalo camel caribou cat
    cheetah chipmunk condor coyote crab crane cricket crow deer dingo dolphin dove dragonfly duck
    eagle elk falcon ferret finch firefly fox frog gazelle gecko gibbon giraffe goose gull hare hawk
    hedgehog heron hornet horse ibex ibis iguana impala jackal jaguar jay kestrel kingfisher kiwi
    koala lark lemur leopard lion lizard llama lynx macaw magpie mantis marmot marten meerkat mole
    moose moth newt ocelot octopus orca oriole osprey otter owl panda panther parrot pelican penguin
    pheasant pika puffin puma quail rabbit raccoon raven robin salmon seal shark sparrow squid stork
    swallow swan swift tapir tern tiger toucan trout turtle vole walrus wolf wombat wren yak zebra
    """
)
