"""Places, and whose share of them an address counts for."""

from __future__ import annotations

import pytest

from perception.server.edge.places import Places, group_of
from perception.server.problems import Busy


def status(places: Places, client: str) -> int:
    try:
        places.take(client)
    except Busy as busy:
        return busy.status
    return 200


def test_a_client_gets_its_share_and_no_more() -> None:
    places = Places(4, 0.5, "uploads")
    assert [status(places, client) for client in "aaabbbc"] == [200, 200, 429, 200, 200, 429, 503]
    assert places.taken == 4


@pytest.mark.parametrize(("count", "share", "most"), [(1, 0.5, 1), (2, 0.5, 1), (3, 0.5, 2), (10, 0.01, 1), (3, 1, 3)])
def test_a_share_is_never_nothing(count: int, share: float, most: int) -> None:
    places = Places(count, share, "uploads")
    assert [status(places, "a") for _ in range(count)].count(200) == most


def test_who_is_not_known_has_no_share() -> None:
    """All behind one proxy on a Unix socket look like that."""
    places = Places(4, 0.5, "uploads")
    assert [status(places, "") for _ in range(5)] == [200] * 4 + [503]


def test_a_place_is_free_again_however_it_is_left() -> None:
    places = Places(1, 1, "uploads")
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), places.take("a"):
            raise ZeroDivisionError
    assert places.taken == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),  # one household's
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "10.0.0.1", False),
        ("testclient", "testclient", True),
    ],
)
def test_whose_share_an_address_counts_for(one: str, other: str, same: bool) -> None:
    assert (group_of(one) == group_of(other)) is same
