# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tests.unit.test_views_rows import connection, edge
from weir.errors import ConfigError
from weir.views import units
from weir.views.cells import fitted, fitted_end
from weir.views.filters import parse
from weir.views.layout import laid_out
from weir.views.rates import Rated, Rates, Row, live, ordered, totals
from weir.views.service_names import ServiceNames
from weir.views.table import VIEWS, columns_of


def test_one_sample_has_no_rates() -> None:
    (rated,) = Rates().update([edge(sent_bytes=1000)], 50.0)
    assert (rated.tx, rated.rx) == (None, None)
    assert totals([rated]).tx is None


def test_the_rows_own_age_tells_the_time() -> None:
    rates = Rates()
    rates.update([edge(sent_bytes=1000, received_bytes=0, age_seconds=10.0)], 0.0)
    (rated,) = rates.update([edge(sent_bytes=3000, received_bytes=50, age_seconds=15.0)], 1.0)
    assert (rated.tx, rated.rx) == (400.0, 10.0)


def test_the_same_snapshot_twice_keeps_the_rates() -> None:
    rates = Rates()
    rates.update([edge(age_seconds=10.0)], 0.0)
    first = rates.update([edge(sent_bytes=500, age_seconds=15.0)], 1.0)
    fresh = [rates.fresh]
    second = rates.update([edge(sent_bytes=500, age_seconds=15.0)], 2.0)
    assert [*fresh, rates.fresh] == [True, False]
    assert first[0].tx == second[0].tx == 100.0


def test_the_clock_serves_rows_without_an_age() -> None:
    rates = Rates()
    rates.update([edge(age_seconds=None)], 7.0)
    (rated,) = rates.update([edge(sent_bytes=10, age_seconds=None)], 9.0)
    assert rated.tx == 5.0


def test_a_new_row_counts_from_nothing_and_an_old_unseen_one_is_unknown() -> None:
    rates = Rates()
    rates.update([edge("a", age_seconds=10.0)], 0.0)
    rows = [edge("a", age_seconds=12.0), edge("new", sent_bytes=100, age_seconds=1.5),
            edge("late", sent_bytes=9**9, age_seconds=900.0)]  # fmt: skip
    assert [r.tx for r in rates.update(rows, 2.0)] == [0.0, 50.0, None]


def test_counters_that_went_back_give_no_negative_rate() -> None:
    rates = Rates()
    rates.update([edge(sent_bytes=1000, age_seconds=1.0)], 0.0)
    assert rates.update([edge(sent_bytes=10, age_seconds=2.0)], 1.0)[0].tx == 0.0


def test_rows_of_one_id_stay_apart() -> None:
    ids = [r.row.id for r in Rates().update([edge("x"), edge("x"), edge("x")], 0.0)]
    assert ids == ["x", "x#2", "x#3"]


def test_totals() -> None:
    rated = [Rated(edge(sent_bytes=3, live=2), 1.5, 0.5), Rated(edge(received_bytes=4, live=1))]
    sums = totals(rated)
    assert (sums.tx, sums.rx, sums.sent_bytes, sums.received_bytes) == (1.5, 0.5, 3, 4)
    assert (sums.rows, sums.live) == (2, 3)
    assert [live(connection()), live(connection(state="SYN_SENT"))] == [1, 0]


def test_orders() -> None:
    quiet = Rated(edge("quiet", workload="Bee", sent_bytes=900, rtt_p50_us=None), 0.0, 0.0)
    busy = Rated(edge("busy", workload="ant", sent_bytes=10, rtt_p50_us=5.0), 60.0, 50.0)
    far = Rated(edge("far", workload="cat", sent_bytes=20, rtt_p50_us=9000.0), 100.0, 0.0)
    rows = [quiet, busy, far]

    def by(sort: str) -> list[str]:
        return [r.row.id for r in ordered(rows, sort)]

    assert by("rate") == ["busy", "far", "quiet"]
    assert by("total") == ["quiet", "far", "busy"]
    assert by("latency") == ["far", "busy", "quiet"]
    assert by("name") == ["busy", "quiet", "far"]


NGINX = edge(workload="web-1", kind="container", runtime="docker", container_id="abc123", process="nginx",
             role="destination", local_address="10.1.2.3", remote_address="192.168.0.0/16", port=8080,
             pid=77, netns=4026531840)  # fmt: skip
V6 = connection(local_address="fd00::1", remote_address="2001:db8::9", family=6, state="CLOSE_WAIT")
DNS = connection(workload="systemd-resolved.service", kind="unit", process="resolved", protocol="udp",
                 state="", remote_address="10.9.9.9", remote_port=53, service_port=53)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", [NGINX, V6, DNS]),
        ("NGINX", [NGINX]),
        ("web docker", [NGINX]),
        ("nginx curl", []),
        ("udp", [DNS]),
        ("!udp", [NGINX, V6]),
        ("close_wait", [V6]),
        ("state:close", [V6]),
        ("8080", [NGINX]),
        ("port:53", [DNS]),
        ("port:8000-8999", [NGINX]),
        ("port:80", []),
        ("!port:53 !nginx", [V6]),
        ("2001:db8::9", [V6]),
        ("[2001:db8::9]:443", [V6]),
        ("10.9.9.9:53", [DNS]),
        ("remote:192.168.0.0/12", [NGINX]),
        ("remote:192.168.1.0/24", []),
        ("address:10.0.0.0/8", [NGINX, DNS]),
        ("address:fd00::/8", [V6]),
        ("container:abc", [NGINX]),
        ("unit:resolved", [DNS]),
        ("role:dest", [NGINX]),
        ("pid:77", [NGINX]),
        ('"web-1"', [NGINX]),
    ],
)
def test_filters(text: str, found: list[Row]) -> None:
    match = parse(text)
    assert [row for row in (NGINX, V6, DNS) if match(row)] == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour:red", "no key 'colour'; there are name, process"),
        ("port:http", "a number or a range"),
        ("port:1-x", "a number or a range"),
        ("remote:10.0.0.0/99", "not a network"),
        ("port:", "a value is missing after port:"),
        ("a !", "a word is missing after !"),
        ('"open', "is not closed"),
    ],
)
def test_a_bad_filter_says_why_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (999.7, "1.00 kB"), (1234, "1.23 kB"), (999_600, "1.00 MB"),
     (12_345_678, "12.3 MB"), (10**18 * 5, "5.00 EB")],
)  # fmt: skip
def test_bytes(value: float | None, shown: str) -> None:
    assert units.amount(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (23.44, "23.4 µs"), (812, "812 µs"), (1500, "1.50 ms"), (2.5e6, "2.50 s")],
)
def test_durations(value: float | None, shown: str) -> None:
    assert units.duration_us(value) == shown


def test_numbers_never_outgrow_their_columns() -> None:
    for exponent in range(200):
        value = 10 ** (exponent / 10)
        assert len(units.amount(value)) <= 7
        assert len(units.duration_us(min(value, 1e11))) <= 7
        assert len(units.count(int(value))) <= 5


def test_cells_have_their_width_whatever_is_in_them() -> None:
    assert fitted("日本語テキスト", 6) == "日本 …"
    assert fitted("a\x1b[31mb", 8) == "a?[31mb "
    assert fitted("7", 3, right=True) == "  7"
    assert fitted_end("2001:db8:85a3:8d3:1319:8a2e:370:7348", 16) == "2001:d…:370:7348"


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("width", [1, 12, 40, 60, 80, 120, 160, 300])
def test_lines_never_exceed_the_width(view: str, width: int) -> None:
    row: Row = (
        edge(workload="x" * 80, remote_address="2001:db8:1111:2222:3333:4444:5555:6666", sent_bytes=10**15)
        if view == "edges"
        else connection(workload="x" * 80, remote_address="2001:db8:1111:2222:3333:4444:5555:6666")
    )
    layout = laid_out(columns_of(view, ServiceNames()), width)
    assert len(layout.heading("rate")) <= width
    assert len(layout.line(Rated(row, 1e15, 1e15))) <= width


def test_the_least_important_columns_go_first() -> None:
    def titles(width: int) -> list[str]:
        return [c.title for c in laid_out(columns_of("edges", ServiceNames()), width).columns]

    assert titles(60) == ["NAME", "REMOTE", "SERVICE", "TX/s", "RX/s"]
    assert titles(80) == ["NAME", "REMOTE", "SERVICE", "PROT", "LIVE", "TX/s", "RX/s", "RTT"]
    assert {"LOCAL", "TX", "RX", "RETR"} <= set(titles(120))
