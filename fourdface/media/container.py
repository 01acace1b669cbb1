"""Open media containers safely with PyAV: local files only, known formats only, one sentence for whatever is wrong."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import av
import av.error
import av.stream

from fourdface.errors import FourdError
from fourdface.media.sniff import describe_source

MediaSource = str | os.PathLike[str] | IO[bytes]

# Playlists (hls, concat, dash) can name other files and network addresses, and text demuxers (tty, subtitles) accept
# anything: only formats that carry pictures or sound themselves are opened, and only over the file protocol.
_FORMATS = (
    "aac,ac3,aiff,amr,apng,asf,av1,avi,avs2,caf,cavsvideo,dirac,dnxhd,dts,dv,eac3,f4v,flac,flv,gif,gxf,h261,h263,h264,hevc,"
    "ivf,jpeg_pipe,jpegxl_anim,jpegxl_pipe,m4v,matroska,mjpeg,mov,mp3,mpeg,mpegts,mpegvideo,mxf,nsv,nut,obu,ogg,png_pipe,rm,"
    "swf,tta,vc1,vvc,w64,wav,webm,webp_pipe,wtv,wv,yuv4mpegpipe"
)
_OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
# PyAV 17 cannot skip streams; it then reads them for nothing.
_DISCARD_ALL = getattr(getattr(av.stream, "Discard", None), "all", None)
AV_ERRORS = (av.error.FFmpegError, OSError, ValueError, UnicodeDecodeError)


class Spool:
    """A stream copied into a temporary file, which lives as long as somebody holds this object."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fourd-media-")
        self.path = Path(self._folder.name) / "stream"
        with open(self.path, "wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)


def locate(source: MediaSource) -> tuple[Path, Spool | None, str]:
    """Return (path, spool to keep alive or None, name for messages); a stream is spooled because demuxers must seek.

    Raises:
        FourdError: no such file, a folder, unreadable or empty.
    """
    if not isinstance(source, str | os.PathLike):
        name = f"stream {getattr(source, 'name', '')!s}".replace("<stdin>", "on stdin").strip()
        try:
            spool = Spool(source)
        except OSError as error:
            raise FourdError(f"cannot spool the {name} to a temporary file: {error.strerror or error}.") from None
        path: Path = spool.path
    else:
        spool, path, name = None, Path(source), os.fspath(source)
    if not path.exists():
        raise FourdError(f"{name} does not exist: give the path of a video.")
    if path.is_dir():
        raise FourdError(f"{name} is a folder: a video file is wanted.")
    if not os.access(path, os.R_OK):
        raise FourdError(f"{name} cannot be read: permission denied.")
    if path.stat().st_size == 0:
        raise FourdError(f"{name} is empty (0 bytes): a video (MP4, MOV, MKV, WebM, ...) is wanted.")
    return path, spool, name


def open_container(path: Path, name: str) -> Any:
    """Open for reading, whatever PyAV's container type is; corrupt packets are marked, not fatal.

    Raises:
        FourdError: not a media file, or damaged so that it cannot be opened.
    """
    try:
        # "file:" keeps a name such as `a:b.mp4` from being taken for a protocol; undecodable tags must not end the job.
        return av.open(
            f"file:{os.path.abspath(path)}", "r", container_options=dict(_OPEN_OPTIONS), metadata_errors="replace"
        )
    except AV_ERRORS:
        raise FourdError(unreadable_message(path, name)) from None


def unreadable_message(path: Path, name: str) -> str:
    """One sentence for a file that the demuxer refuses."""
    what = describe_source(path)
    if any(word in what for word in ("MP4", "QuickTime")):
        return (
            f"{name} looks like {what} but has no usable index (moov), as when a recording or download was cut short: "
            "give the complete file."
        )
    if any(word in what for word in ("video", "Matroska", "Ogg", "GIF", "sound")):
        return f"{name} looks like {what} but is damaged or cut short: give the complete file."
    return f"{name} looks like {what}: a video (MP4, MOV, MKV, WebM, GIF, ...) is wanted."


def robust_demux(container: Any, stream: Any, damage: list[str], max_retries: int = 16) -> Iterator[Any]:
    """Yield a stream's packets (no flush packet); a read error is noted in `damage`, then reading goes on.

    Demuxers resynchronise after a bad block, so a few errors are survived; all other streams are skipped unread.
    """
    retries = 0
    for other in container.streams:
        if other.index != stream.index and _DISCARD_ALL is not None:
            other.discard = _DISCARD_ALL
    while True:
        try:
            for packet in container.demux(stream):
                if packet.size:
                    yield packet
            return
        except AV_ERRORS as error:
            damage.append(f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}")
            retries += 1
            if retries > max_retries:
                return


@contextlib.contextmanager
def quiet_libav() -> Iterator[None]:
    """Keep libav's own messages out of stderr; ours say the same in one sentence."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.PANIC)
    try:
        yield
    finally:
        av.logging.set_level(level)
