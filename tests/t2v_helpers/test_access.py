"""Which requests come from a page of ours, by what they say of themselves."""

import socket

import pytest

from sd_t2v.t2v_helpers.access import Names, Refused, Visit, check_request, host_name, read_visit

HERE = Names()
LISTENING = Names(listens="0.0.0.0")
BEHIND = Names(("video.example", ".tunnel.example"))
OWN = {"host": "127.0.0.1:7861", "origin": "http://127.0.0.1:7861", "sec-fetch-site": "same-origin"}


@pytest.mark.parametrize(
    ("names", "headers"),
    [
        (HERE, OWN),
        (HERE, {"host": "127.0.0.1:7861"}),
        (HERE, {"host": "localhost:7861", "origin": "http://localhost:7861"}),
        (HERE, {"host": "LOCALHOST", "sec-fetch-site": "none"}),
        (HERE, {"host": "[::1]:7861", "origin": "http://[::1]:7861"}),
        (HERE, {"host": "127.0.0.1:9000", "origin": "http://127.0.0.1:9000"}),
        (HERE, {"host": "localhost", "origin": "https://localhost"}),
        (LISTENING, {"host": "192.168.1.5:7861", "origin": "http://192.168.1.5:7861"}),
        (LISTENING, {"host": "[fe80::1]:7861"}),
        (LISTENING, {"host": f"{socket.gethostname()}:7861"}),
        (BEHIND, {"host": "video.example", "origin": "https://video.example"}),
        (BEHIND, {"host": "a.tunnel.example", "origin": "https://a.tunnel.example"}),
        # The proxy does not pass the host on, or without its port.
        (BEHIND, {"host": "127.0.0.1:7861", "origin": "https://video.example"}),
        (BEHIND, {"host": "video.example", "origin": "https://video.example:8443"}),
    ],
)
def test_own_pages_and_programs_are_let_in(names: Names, headers: dict[str, str]) -> None:
    check_request(headers, names)


@pytest.mark.parametrize(
    ("names", "headers"),
    [
        (HERE, OWN | {"origin": "http://evil.example"}),
        (HERE, OWN | {"origin": "null"}),
        (HERE, OWN | {"origin": ""}),
        (HERE, OWN | {"origin": "http://127.0.0.1:3000"}),
        (HERE, OWN | {"origin": "http://localhost:7861"}),
        (HERE, OWN | {"origin": "file://127.0.0.1:7861"}),
        (HERE, OWN | {"origin": "http://127.0.0.1:7861, http://evil.example"}),
        (HERE, OWN | {"origin": "http://127.0.0.1:7861.evil.example"}),
        (HERE, OWN | {"origin": "http://[::1"}),
        (HERE, OWN | {"origin": "http://127.0.0.1:port"}),
        (HERE, {"host": "127.0.0.1:7861", "sec-fetch-site": "cross-site"}),
        (HERE, {"host": "127.0.0.1:7861", "sec-fetch-site": "same-site"}),
        (HERE, {"host": "127.0.0.1:7861", "sec-fetch-site": "nonsense"}),
        (HERE, {"host": "evil.example:7861"}),
        (HERE, {"host": "evil.example:7861", "origin": "http://evil.example:7861", "sec-fetch-site": "same-origin"}),
        (HERE, {"host": "localhost.evil.example"}),
        (HERE, {"host": "127.0.0.1, evil.example"}),
        (HERE, {"host": "127.0.0.1@evil.example"}),
        (HERE, {"host": "192.168.1.5:7861"}),
        (HERE, {"host": "[::1"}),
        (HERE, {"host": ""}),
        (HERE, {}),
        (LISTENING, {"host": "evil.example"}),
        (LISTENING, {"host": "192.168.1.5", "origin": "http://evil.example"}),
        (BEHIND, {"host": "tunnel.example"}),
        (BEHIND, {"host": "video.example.evil.example"}),
        (BEHIND, {"host": "video.example", "origin": "https://evil.example"}),
        # Names below a tunnel's are other people's, too.
        (BEHIND, {"host": "127.0.0.1:7861", "origin": "https://evil.tunnel.example"}),
        (BEHIND, {"host": "mine.tunnel.example", "origin": "https://evil.tunnel.example"}),
        (HERE, {"host": "127.0.0.1:abc"}),
        (HERE, {"host": "127.0.0.1/evil"}),
        (HERE, {"host": "127.0.0.1:123456"}),
    ],
)
def test_others_are_refused(names: Names, headers: dict[str, str]) -> None:
    with pytest.raises(Refused, match=r"^Refused: "):
        check_request(headers, names)


@pytest.mark.parametrize(
    "headers", [{"host": "mine.example"}, {"host": "127.0.0.1:7861", "origin": "https://mine.example"}]
)
def test_the_refusal_says_how_to_let_a_name_in(headers: dict[str, str]) -> None:
    with pytest.raises(Refused, match=r"If 'mine\.example' is yours: --allow-host 'mine\.example'$"):
        check_request(headers, Names(remedy="If {name} is yours: --allow-host {name}"))


@pytest.mark.parametrize("headers", [{}, {"host": ""}, {"host": "127.0.0.1:abc"}])
def test_a_request_without_a_valid_host_is_told_so(headers: dict[str, str]) -> None:
    with pytest.raises(Refused, match=r"^Refused: the request names no valid host\.$"):
        check_request(headers, Names(remedy="--allow-host {name}"))


@pytest.mark.parametrize("origin", ["null", "http://127.0.0.1:3000", "http://localhost:3000"])
def test_a_page_whose_name_would_not_help_gets_no_such_advice(origin: str) -> None:
    with pytest.raises(Refused, match=r"Nothing was done\.$"):
        check_request({"host": "127.0.0.1", "origin": origin}, Names(remedy="If {name} is yours: --allow-host {name}"))


def test_a_header_that_is_there_twice_passes_no_check() -> None:
    own = [(b"Host", b"127.0.0.1"), (b"Origin", b"http://127.0.0.1"), (b"origin", b"http://evil.example")]
    visit = read_visit({"headers": own, "client": ("127.0.0.1", 1)})
    with pytest.raises(Refused):
        check_request(visit.headers, HERE)


@pytest.mark.parametrize(
    ("headers", "client", "local"),
    [
        ({"host": "127.0.0.1:7861"}, "127.0.0.1", True),
        ({"host": "localhost"}, "::1", True),
        ({"host": "127.0.0.1:7861"}, "192.168.1.7", False),
        ({"host": "192.168.1.5"}, "127.0.0.1", False),
        ({"host": "127.0.0.1", "x-forwarded-for": "127.0.0.1"}, "127.0.0.1", False),
        ({"host": "127.0.0.1", "via": "proxy"}, "127.0.0.1", False),
        ({"host": "127.0.0.1", "origin": "https://video.example"}, "127.0.0.1", False),
        ({"host": "127.0.0.1", "origin": "http://127.0.0.1"}, "::ffff:127.0.0.1", True),
        ({}, "127.0.0.1", False),
        ({"host": "127.0.0.1"}, "", False),
    ],
)
def test_who_sits_at_this_computer(headers: dict[str, str], client: str, local: bool) -> None:
    assert Visit(headers, client).is_local is local


def test_host_names_lose_port_brackets_and_the_dot_at_their_end() -> None:
    assert [host_name(host) for host in ("A.example.:80", "[::1]:1", "1.2.3.4", "[bad")] == [
        "a.example",
        "::1",
        "1.2.3.4",
        "",
    ]
