"""The secret key of a project, and what follows from it: pseudonyms, UIDs and date shifts, the same in every run."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import stat
from pathlib import Path

from pydicom import config
from pydicom.uid import UID

from theracast_data.errors import TheracastError

_HEX = re.compile(r"[0-9a-fA-F]{64}")
MAX_SHIFT_DAYS = 3650
# The registries of codes, not of patients: HL7's arc names coding schemes such as SNOMED CT.
_CODING_SCHEMES = "2.16.840.1.113883."


class KeyFileError(TheracastError):
    """The key file is not there, not a key, or open to others."""


def is_registered(uid: str) -> bool:
    """Return whether the standard gives a UID a name: a class or syntax, which says nothing of a patient."""
    return UID(uid, validation_mode=config.IGNORE).name != uid


class PseudonymKey:
    """A secret of 32 bytes. Everything it derives is HMAC-SHA256 of a purpose and the original, and cannot be reversed.

    The key appears in no text of this object, so that it cannot end in a log.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 32:
            raise KeyFileError("the key has fewer than 32 bytes. Let `--new-key` make one.")
        self._secret = secret

    def __repr__(self) -> str:
        return f"PseudonymKey({self.fingerprint})"

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that tell two keys apart and say nothing of them."""
        return self._digest("fingerprint", "")[:4].hex()

    def patient(self, patient_id: str) -> str:
        """Return the pseudonym of a patient: P and 12 letters or digits (60 bits)."""
        return "P" + base64.b32encode(self._digest("patient", patient_id.strip()))[:12].decode()

    def device(self, kind: str, name: str) -> str:
        """Return the pseudonym of a device or an institution, so that scanners can still be told apart."""
        return "D" + base64.b32encode(self._digest(f"device {kind}", name.strip()))[:12].decode()

    def shift_days(self, patient_id: str) -> int:
        """Return the shift of all dates of a patient in days, in -3650 to -1."""
        return -1 - int.from_bytes(self._digest("shift", patient_id.strip())[:8], "big") % MAX_SHIFT_DAYS

    def uid(self, uid: str) -> str:
        """Return the UID that takes the place of `uid`: 2.25 and a UUID (version 8), at most 44 characters.

        What the standard registers (SOP classes, transfer syntaxes, well-known frames of reference) and the UIDs of
        coding schemes stay.
        """
        uid = uid.strip().rstrip("\0")
        if not uid or is_registered(uid) or uid.startswith(_CODING_SCHEMES):
            return uid
        bits = int.from_bytes(self._digest("uid", uid)[:16], "big")
        bits = bits & ~(0xF << 76) | 0x8 << 76  # version 8: a hash of the maker's choice
        bits = bits & ~(0x3 << 62) | 0x2 << 62  # variant of RFC 9562
        return f"2.25.{bits}"

    def _digest(self, purpose: str, original: str) -> bytes:
        return hmac.new(self._secret, f"theracast {purpose}|{original}".encode(), hashlib.sha256).digest()


def create_key(path: Path) -> PseudonymKey:
    """Return a new key, written to `path` for its owner alone (mode 600).

    Raises:
        KeyFileError: the file exists (a lost key cannot be made again), or its folder cannot be written.
    """
    secret = secrets.token_bytes(32)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyFileError(f"{path} exists. Leave out --new-key to use it, or name another file.") from None
    except OSError as error:
        raise KeyFileError(f"{path}: the key cannot be written ({error.strerror}). Choose another folder.") from error
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secret.hex() + "\n")
    return PseudonymKey(secret)


def read_key(path: Path) -> PseudonymKey:
    """Return the key in `path`.

    Raises:
        KeyFileError: no such file, readable by others, or not 64 hexadecimal digits.
    """
    try:
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise KeyFileError(
                f"{path} can be read by others; whoever has it can undo the pseudonyms. chmod 600 {path}"
            )
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise KeyFileError(f"{path}: the key cannot be read ({error.strerror}). Make one with --new-key.") from error
    if not _HEX.fullmatch(text):
        raise KeyFileError(f"{path} is not a key: it must hold 64 hexadecimal digits. Make one with --new-key.")
    return PseudonymKey(bytes.fromhex(text))
