"""What the launcher does about processes that end while the server runs."""

from __future__ import annotations

import pytest

from launcher.errors import LaunchError
from launcher.supervisor import FRONT_TRIES, Supervisor


class Front:
    """Has ended; starting it again fails some times."""

    def __init__(self, failures: list[Exception]) -> None:
        self.failures = failures

    def revive(self) -> bool:
        if self.failures:
            raise self.failures.pop()
        return True


class Descendants:
    looked = 0

    def look(self) -> None:
        self.looked += 1

    def end_stopped(self) -> None:
        return

    def lost(self) -> list[str]:
        return []


def supervising(front: Front, descendants: Descendants) -> Supervisor:
    return Supervisor(front, descendants)  # type: ignore[arg-type]


def test_a_front_that_does_not_start_is_tried_again() -> None:
    front, descendants = Front([LaunchError("taken"), OSError("no memory")] * 2), Descendants()
    supervisor = supervising(front, descendants)
    for _ in range(4):
        supervisor.check()
    assert descendants.looked == 0
    supervisor.check()
    assert descendants.looked == 1
    front.failures = [OSError("no memory")] * 4
    for _ in range(5):  # they are counted anew
        supervisor.check()
    assert descendants.looked == 2


@pytest.mark.parametrize("error", [LaunchError("taken"), OSError("taken")])
def test_but_not_for_ever(error: Exception) -> None:
    supervisor = supervising(Front([error] * FRONT_TRIES), Descendants())
    for _ in range(FRONT_TRIES - 1):
        supervisor.check()
    with pytest.raises(LaunchError, match="taken"):
        supervisor.check()
    assert not supervisor.gave_up, "Ray itself can end in order"
