"""The little of a websocket client (RFC 6455) that listening to ComfyUI takes, without a dependency."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import struct

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class WebSocketError(ConnectionError):
    """The server refused the upgrade or went away."""


class WebSocket:
    """One connection to a server on this machine: receives messages, answers pings."""

    def __init__(self, address: str, path: str, timeout: float = 10.0) -> None:
        host, _, port = address.partition(":")
        self._socket = socket.create_connection((host, int(port)), timeout)
        key = base64.b64encode(os.urandom(16)).decode()
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self._socket.sendall(request.encode())
        self._buffer = b""
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        response, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if b" 101 " not in response.partition(b"\r\n")[0]:
            raise WebSocketError(response.decode(errors="replace"))

    def receive(self, timeout: float) -> str | bytes:
        """The next message, text or binary; TimeoutError if nothing came for `timeout` seconds.

        A time-out keeps what has arrived of a frame, so that the call can be repeated.
        """
        self._socket.settimeout(timeout)
        kind, parts = BINARY, []
        while True:
            final, opcode, payload = self._frame()
            if opcode == PING:
                self._send(PONG, payload)
            elif opcode == CLOSE:
                raise WebSocketError("closed by the server")
            elif opcode in (CONTINUATION, TEXT, BINARY):
                kind = opcode or kind
                parts.append(payload)
                if final:
                    message = b"".join(parts)
                    return message.decode() if kind == TEXT else message

    def close(self) -> None:
        """Say goodbye if the server still listens, and close."""
        with contextlib.suppress(OSError):
            self._send(CLOSE, b"")
        self._socket.close()

    def _frame(self) -> tuple[bool, int, bytes]:
        self._require(2)
        size, start = self._buffer[1] & 0x7F, 2
        if size >= 126:
            extended = ">H" if size == 126 else ">Q"
            start += struct.calcsize(extended)
            self._require(start)
            size = struct.unpack(extended, self._buffer[2:start])[0]
        self._require(start + size)
        first, payload = self._buffer[0], self._buffer[start : start + size]
        self._buffer = self._buffer[start + size :]
        return bool(first & 0x80), first & 0x0F, payload

    def _require(self, size: int) -> None:
        while len(self._buffer) < size:
            self._fill()

    def _fill(self) -> None:
        received = self._socket.recv(1 << 16)
        if not received:
            raise WebSocketError("connection lost")
        self._buffer += received

    def _send(self, opcode: int, payload: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self._socket.sendall(bytes((0x80 | opcode, 0x80 | len(payload))) + mask + masked)
