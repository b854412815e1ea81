"""nft's transactions without a process for each: libnftables, of which nft is made. Shell.

A program's start, and the end of its netlink socket, take ten times as long as a transaction.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int, c_uint, c_void_p

LIBRARY = "libnftables.so.1"
"""Debian's nftables comes with it (libnftables1)."""

OUTPUT_JSON = 1 << 4
"""NFT_CTX_OUTPUT_JSON of nftables/libnftables.h."""

TYPES = {
    "nft_ctx_new": (c_void_p, [c_uint]),
    "nft_ctx_free": (None, [c_void_p]),
    "nft_ctx_output_set_flags": (None, [c_void_p, c_uint]),
    "nft_ctx_buffer_output": (c_int, [c_void_p]),
    "nft_ctx_buffer_error": (c_int, [c_void_p]),
    "nft_ctx_get_output_buffer": (c_char_p, [c_void_p]),
    "nft_ctx_get_error_buffer": (c_char_p, [c_void_p]),
    "nft_run_cmd_from_buffer": (c_int, [c_void_p, c_char_p]),
}
"""What we call of it: results and parameters."""


class NftError(Exception):
    """nft refused: what it said, and the transaction."""


class Nft:
    """nft in the network namespace of the thread that makes it; used on that thread only."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(LIBRARY)
        for name, (result, parameters) in TYPES.items():
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, parameters
        self._context = c_void_p(self._library.nft_ctx_new(0))
        self._library.nft_ctx_output_set_flags(self._context, OUTPUT_JSON)
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def run(self, text: str) -> str:
        """Run one transaction, and return what it lists, in JSON. Raises NftError."""
        failed = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context)
        trouble: bytes = self._library.nft_ctx_get_error_buffer(self._context)
        if failed:
            raise NftError(f"nft: {trouble.decode()}\n{text}")
        return output.decode()

    def close(self) -> None:
        """Let go of its netlink socket."""
        self._library.nft_ctx_free(self._context)
