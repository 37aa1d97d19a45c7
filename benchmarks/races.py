"""Two runners of one task, timed in turns."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import scenes

if TYPE_CHECKING:
    from collections.abc import Callable

REPEATS = 5 if scenes.SIZE >= 4096 else 1
"""Rounds; a small scene only shows that everything runs and agrees."""
TIMEOUT_S = 1800
"""For a benchmark of asv: a race at full size takes minutes."""
_TRIES = 10


class PeerDiedError(RuntimeError):
    """A peer ended by a fault of its own that comes and goes: it runs again, and only the run that ends is timed."""


@dataclass(frozen=True)
class Race:
    """Times of ours and of the peer, one pair a round."""

    ours_s: tuple[float, ...]
    peer_s: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times as fast ours was, round by round: both of a round met the same load of the machine."""
        return tuple(peer / ours for ours, peer in zip(self.ours_s, self.peer_s, strict=True))

    @property
    def ratio(self) -> float:
        """Median of the rounds."""
        return median(self.ratios)


def race(
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    *,
    repeats: int = REPEATS,
    prepare: Callable[[], None] = lambda: None,
) -> Race:
    """Time both in turns, after one untimed round (imports, compilers, file cache), and see that they agree.

    Both return what the answer is told by, such as counts; the work that makes it is theirs. What ``prepare`` does
    before each round is not timed.

    Raises
    ------
    RuntimeError
        When the answers differ: times of two different tasks mean nothing.
    """
    rounds = []
    for _ in range(repeats + 1):
        prepare()
        rounds.append(_timed_round(ours, peer))
    rounds = rounds[1:]
    ours_s, peer_s = zip(*rounds, strict=True)
    return Race(ours_s, peer_s)


def _timed_round(ours: Callable[[], Any], peer: Callable[[], Any]) -> tuple[float, float]:
    (peer_s, theirs), (ours_s, own) = _timed(peer), _timed(ours)
    if own != theirs:
        raise RuntimeError(f"ours gave {own}, the peer {theirs}")
    return ours_s, peer_s


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    for tries_left in reversed(range(_TRIES)):
        start = time.perf_counter()
        try:
            answer = run()
        except PeerDiedError:
            if not tries_left:
                raise
        else:
            break
    return time.perf_counter() - start, answer
