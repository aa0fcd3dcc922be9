"""GDCM in a process of its own: it ends the whole process (std::terminate) on some damaged JPEG streams.

`python -m theracast_data.dicom.isolated` is that process. It reads lines `{"path": ..., "frame": ...}` and answers each with a line
`{"dtype": ..., "shape": [...]}` and the bytes, or `{"fault": ...}`. Where no answer comes, the stream is damaged and the next
request gets a new process.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

PATIENCE_S = 120.0  # a frame takes milliseconds, the start of the process a second or two


class DecoderDiedError(RuntimeError):
    """The decoder crashed, hung, or refused the stream."""


class Decoder:
    """A process with GDCM, started at the first request and again after each crash or fork."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    @property
    def process_id(self) -> int | None:
        """Number of the process; None before the first request."""
        return None if self._process is None else self._process.pid

    def decode(self, path: Path, frame: int) -> npt.NDArray[np.integer[Any]]:
        """Return the stored pixels of a frame.

        Raises:
            DecoderDiedError: the stream is damaged.
        """
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps({"path": str(path.resolve()), "frame": frame}).encode() + b"\n")
                process.stdin.flush()
                answer = _answer(process.stdout)
            except (OSError, ValueError, TimeoutError) as error:
                self.close()
                raise DecoderDiedError("the decoder ended") from error
        if "fault" in answer:
            raise DecoderDiedError(answer["fault"])
        found: npt.NDArray[np.integer[Any]] = np.frombuffer(answer["bytes"], dtype=answer["dtype"])
        return found.reshape(answer["shape"])

    def close(self) -> None:
        """End the process, if it is this one's."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self.close()
            self._owner = os.getpid()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "theracast_data.dicom.isolated"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                bufsize=0,
            )
        return self._process


def _answer(pipe: IO[bytes]) -> dict[str, Any]:
    """Return the answer of the process, with its bytes."""
    line = b""
    while not line.endswith(b"\n"):
        line += _some(pipe, 1)
    answer: dict[str, Any] = json.loads(line)
    if "fault" not in answer:
        size = int(np.prod(answer["shape"])) * np.dtype(answer["dtype"]).itemsize
        parts, held = [], 0
        while held < size:
            parts.append(_some(pipe, size - held))
            held += len(parts[-1])
        answer["bytes"] = b"".join(parts)
    return answer


def _some(pipe: IO[bytes], most: int) -> bytes:
    """Return what the pipe has, at least one byte."""
    if not select.select([pipe], [], [], PATIENCE_S)[0]:
        raise TimeoutError
    found = pipe.read(most)
    if not found:
        raise OSError("the process ended")
    return found


def serve() -> None:
    """Answer requests until the input ends."""
    import warnings

    import pydicom
    from pydicom.pixels.decoders.base import get_decoder

    warnings.simplefilter("ignore")
    out = sys.stdout.buffer
    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            dataset = pydicom.dcmread(request["path"])
            decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
            array, _ = decoder.as_array(dataset, index=request["frame"], raw=True, decoding_plugin="gdcm")
            found = np.ascontiguousarray(array)
        except Exception as error:  # whatever it is, the stream is not read
            out.write(json.dumps({"fault": type(error).__name__}).encode() + b"\n")
        else:
            out.write(json.dumps({"dtype": found.dtype.str, "shape": found.shape}).encode() + b"\n")
            out.write(found.tobytes())
        out.flush()


GDCM = Decoder()
atexit.register(GDCM.close)

if __name__ == "__main__":
    serve()
