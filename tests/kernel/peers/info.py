# SPDX-License-Identifier: Apache-2.0
"""What the kernel itself says about a TCP socket (``struct tcp_info`` of linux/tcp.h)."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

#: state at 0, rtt at 68 (us), total_retrans at 100, the byte counters from 120 on.
_LAYOUT = {
    "state": (0, "B"),
    "rtt_us": (68, "I"),
    "retransmitted": (100, "I"),
    "bytes_acked": (120, "Q"),
    "bytes_received": (128, "Q"),
    "unsent": (144, "I"),
    "bytes_sent": (200, "Q"),
    "bytes_retrans": (208, "Q"),
}


@dataclass(frozen=True)
class TcpInfo:
    """``state`` is TCP_ESTABLISHED (1) and so on; bytes as the kernel counts them.

    ``bytes_acked`` has 1 more for an acknowledged SYN (clients) and FIN, ``bytes_received`` 1 more for a FIN.
    """

    state: int
    rtt_us: int
    retransmitted: int
    bytes_acked: int
    bytes_received: int
    unsent: int
    bytes_sent: int
    bytes_retrans: int

    @property
    def payload_sent(self) -> int:
        """Bytes of payload that left at least once."""
        return self.bytes_sent - self.bytes_retrans


def tcp_info(sock: socket.socket) -> TcpInfo:
    """``getsockopt(TCP_INFO)``; what an older kernel does not report is 0."""
    raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256).ljust(256, b"\0")
    return TcpInfo(**{name: struct.unpack_from(kind, raw, at)[0] for name, (at, kind) in _LAYOUT.items()})
