# Loaded by Python at its start, for LocalStack 4.5 ignores the host in GATEWAY_LISTEN: a socket that would listen on
# every interface listens on the loopback address only.
import socket

_bind = socket.socket.bind


def _bind_to_loopback(self, address):
    if self.family == socket.AF_INET and address[0] in ("", "0.0.0.0"):
        address = ("127.0.0.1", *address[1:])
    return _bind(self, address)


socket.socket.bind = _bind_to_loopback
