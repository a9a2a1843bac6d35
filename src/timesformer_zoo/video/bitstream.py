"""What only the compressed data itself tells: whether each packet is a picture, and where decoding may start.

A container's word is not enough. It may call interlaced video progressive, of which a packet may be half a picture. It
may mark every frame as a key frame (a file without a sync table), or the points of a periodic intra refresh, after
which pictures become whole little by little.

Sources: ITU-T H.264 (7.3.2.1.1, table 7-1, D.1.8), H.265 (table 7-1), H.262 (6.2.2.3), RFC 6386 for VP8.
"""

from collections.abc import Callable, Iterator

__all__ = ["HEAD", "is_entry", "is_picture_each", "is_spare", "length_size"]

HEAD = 1 << 12  # bytes of a packet that are looked at: parameter sets and messages may lie before the picture


def is_picture_each(codec: str, header: bytes) -> bool:
    """Whether each packet is one picture, shown; False where that can't be told.

    Args:
        header: the codec's, as containers store it apart from the packets.
    """
    if codec == "h264":
        units = _parameter_sets(header) if header[:1] == b"\1" else header.split(b"\0\0\1")[1:]
        sets = [unit for unit in units if unit and unit[0] & 31 == 7]
        return bool(sets) and all(_only_frames(unit) for unit in sets)
    if codec == "mpeg2video":
        extension = header.partition(b"\0\0\1\xb5")[2]  # of it progressive_sequence is the 13th bit
        return len(extension) > 1 and bool(extension[1] & 8)
    return codec in _ENTRIES


def _parameter_sets(header: bytes) -> Iterator[bytes]:
    """Of a sequence, from an avcC box, ISO 14496-15, 5.3.3.1."""
    at = 6
    for _ in range(header[5] & 31 if len(header) > 5 else 0):
        size = int.from_bytes(header[at : at + 2], "big")
        yield header[at + 2 : at + 2 + size]
        at += 2 + size


class _Bits:
    """Reads numbers as H.264 writes them."""

    def __init__(self, data: bytes) -> None:
        data = data.replace(b"\0\0\3", b"\0\0")  # a 3 keeps data from looking like a start code
        self._bits = "".join(f"{byte:08b}" for byte in data)
        self._at = 0

    def take(self, count: int) -> int:
        self._at += count
        return int(self._bits[self._at - count : self._at] or "0", 2)

    def unsigned(self) -> int:
        """Exponential Golomb, 9.1: as many zeros as bits follow the first 1."""
        zeros = max(0, self._bits.find("1", self._at) - self._at)
        self._at += zeros
        return self.take(zeros + 1) - 1

    def signed(self) -> int:
        number = self.unsigned()
        return (number + 1) // 2 if number % 2 else -number // 2


def _only_frames(parameter_set: bytes) -> bool:
    """frame_mbs_only_flag of an H.264 sequence parameter set, which lies behind most of it."""
    bits = _Bits(parameter_set[1:1024])
    profile = bits.take(8)
    bits.take(16)
    bits.unsigned()
    if profile in (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244):  # "High" and above say more
        chroma = bits.unsigned()
        if chroma == 3:
            bits.take(1)
        bits.unsigned()
        bits.unsigned()
        bits.take(1)
        for i in range((12 if chroma == 3 else 8) if bits.take(1) else 0):  # scaling lists, 7.3.2.1.1.1
            scale = 8
            for _ in range((16 if i < 6 else 64) if bits.take(1) else 0):
                scale = (scale + bits.signed()) % 256
                if not scale:  # the rest is as the last one
                    break
    bits.unsigned()
    order = bits.unsigned()  # pic_order_cnt_type
    if order == 0:
        bits.unsigned()
    elif order == 1:
        bits.take(1)
        bits.signed()
        bits.signed()
        for _ in range(min(bits.unsigned(), 255)):
            bits.signed()
    bits.unsigned()
    bits.take(1)
    bits.unsigned()
    bits.unsigned()
    return bool(bits.take(1))


def length_size(codec: str, extradata: bytes | None) -> int:
    """Bytes of the length before each NAL unit, as MP4 and Matroska store them; 0: start codes, as streams have."""
    place = {"h264": 4, "hevc": 21}.get(codec)
    if place is None or not extradata or extradata[0] != 1 or len(extradata) <= place:
        return 0
    return (extradata[place] & 3) + 1


def is_entry(codec: str, packet: bytes, length: int) -> bool:
    """Whether a decoder that starts here gives each later picture as if it had started at the first."""
    return _ENTRIES[codec](packet, length)


def is_spare(codec: str, packet: "bytes | memoryview", length: int) -> bool:
    """Whether no other picture leans on this one, so that it can be left out; False where that can't be told."""
    if codec != "h264":
        return False
    for unit in _nal_units(bytes(packet[:HEAD]), length):
        if unit and unit[0] & 31 in (1, 2, 5):  # of a picture, table 7-1: nal_ref_idc, the same in all of it
            return not unit[0] & 96
    return False


def _nal_units(packet: bytes, length: int) -> Iterator[bytes]:
    if not length:
        yield from packet.split(b"\0\0\1")[1:]
        return
    at = 0
    while at + length < len(packet):
        size = int.from_bytes(packet[at : at + length], "big")
        at += length
        if size:
            yield packet[at : at + size]
        at += size


def _h264(packet: bytes, length: int) -> bool:
    for unit in _nal_units(packet, length):
        kind = unit[0] & 31 if unit else 0
        if kind == 5:  # IDR
            return True
        if kind == 6 and _recovers_at_once(unit[1:]):
            return True
        if kind == 1:  # another picture
            return False
    return False


def _recovers_at_once(messages: bytes) -> bool:
    """An SEI recovery point, type 6, whose first field, recovery_frame_cnt, is 0: the single bit 1."""
    at = 0
    while at + 2 < len(messages):
        numbers = []
        for _ in range(2):  # type, size: each a run of 255s and a last byte
            number = 0
            while at < len(messages) and messages[at] == 255:
                number, at = number + 255, at + 1
            if at >= len(messages):
                return False
            numbers.append(number + messages[at])
            at += 1
        kind, size = numbers
        if kind == 6 and at < len(messages):
            return messages[at] >= 128
        at += size
    return False


def _hevc(packet: bytes, length: int) -> bool:
    for unit in _nal_units(packet, length):
        kind = unit[0] >> 1 & 63 if unit else 63
        if kind < 32:  # a picture's
            return 16 <= kind <= 21  # BLA, IDR, CRA
    return False


def _as_marked(packet: bytes, length: int) -> bool:
    return True


def _vp8(packet: bytes, length: int) -> bool:
    return bool(packet) and not packet[0] & 1  # RFC 6386, section 9.1


# Codecs whose packets may hold one picture each; of others the frames are counted by decoding.
_ENTRIES: dict[str, Callable[[bytes, int], bool]] = {
    "h264": _h264,
    "hevc": _hevc,
    "vp8": _vp8,
    **dict.fromkeys(("vp9", "av1", "mpeg1video", "mpeg2video", "mjpeg", "prores", "dnxhd", "ffv1", "png"), _as_marked),
}
