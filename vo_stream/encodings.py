"""Images as messages and files hold them, turned into grey ones: pure functions, without ROS.

The encodings' names are those of ROS (sensor_msgs/image_encodings.hpp).
"""

from __future__ import annotations

from array import array
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from vo_stream.camera import MAX_SIDE_PX

GreyImage: TypeAlias = npt.NDArray[np.uint8]
"""(height, width) uint8."""

ImageData: TypeAlias = "bytes | bytearray | memoryview | array[int] | npt.NDArray[np.uint8]"
"""The bytes of an image, as files, bags (numpy) and rclpy (array) hand them out."""


class ImageError(ValueError):
    """An image that cannot be used; whoever meets one skips it and counts it.

    `reason`: a few words to count by, the same for all images that fail alike. The message is
    one line, the reason and what this image shows of it.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class _Encoding(NamedTuple):
    """`grey`: which byte of a pixel holds its grey (or mosaic) value, None where all of them do.

    `wide`: values of 16 bits, of which the upper 8 are kept: byte 1 in little-endian order.
    """

    bytes_per_pixel: int
    grey: int | None = None
    wide: bool = False
    conversion: int | None = None


_ENCODINGS = {
    "mono8": _Encoding(1, grey=0),
    "8UC1": _Encoding(1, grey=0),
    "mono16": _Encoding(2, grey=1, wide=True),
    "16UC1": _Encoding(2, grey=1, wide=True),
    "rgb8": _Encoding(3, conversion=cv2.COLOR_RGB2GRAY),
    "bgr8": _Encoding(3, conversion=cv2.COLOR_BGR2GRAY),
    "rgba8": _Encoding(4, conversion=cv2.COLOR_RGBA2GRAY),
    "bgra8": _Encoding(4, conversion=cv2.COLOR_BGRA2GRAY),
    # OpenCV names a mosaic after the second row's second and third pixel.
    "bayer_rggb8": _Encoding(1, grey=0, conversion=cv2.COLOR_BayerBG2GRAY),
    "bayer_bggr8": _Encoding(1, grey=0, conversion=cv2.COLOR_BayerRG2GRAY),
    "bayer_gbrg8": _Encoding(1, grey=0, conversion=cv2.COLOR_BayerGR2GRAY),
    "bayer_grbg8": _Encoding(1, grey=0, conversion=cv2.COLOR_BayerGB2GRAY),
    "bayer_rggb16": _Encoding(2, grey=1, wide=True, conversion=cv2.COLOR_BayerBG2GRAY),
    "bayer_bggr16": _Encoding(2, grey=1, wide=True, conversion=cv2.COLOR_BayerRG2GRAY),
    "bayer_gbrg16": _Encoding(2, grey=1, wide=True, conversion=cv2.COLOR_BayerGR2GRAY),
    "bayer_grbg16": _Encoding(2, grey=1, wide=True, conversion=cv2.COLOR_BayerGB2GRAY),
    "yuv422": _Encoding(2, grey=1),
    "uyvy": _Encoding(2, grey=1),
    "yuv422_yuy2": _Encoding(2, grey=0),
    "yuyv": _Encoding(2, grey=0),
}

# A camera's calibration belongs to the sensor's own orientation, so EXIF must not turn the image.
_DECODE_FLAGS = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNK_FRAME = 12
"""Bytes of a chunk beside its data: length, kind and checksum."""

_JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN_MARKER = 0xDA
_JPEG_LONE_MARKERS = frozenset(range(0xD0, 0xD9)) | {0x01}
"""Markers that no length follows."""


def grey_from_raw(
    data: ImageData, encoding: str, height: int, width: int, step: int, is_bigendian: bool
) -> GreyImage:
    """Return the grey image of the fields of a sensor_msgs/Image.

    `step` is a row's length in bytes, padding included; the last row may lack its padding.
    Values of 16 bits keep their upper 8. The result of mono8 and 8UC1 is a view of `data`.
    Raises ImageError.
    """
    if encoding not in _ENCODINGS:
        known = ", ".join(_ENCODINGS)
        raise ImageError("unsupported encoding", f"{encoding!r} is none of {known}")
    layout = _ENCODINGS[encoding]
    _check_size(width, height)
    row_bytes = width * layout.bytes_per_pixel
    if step < row_bytes:
        raise ImageError("wrong step", f"{step} bytes for {width} pixels of {encoding}")
    buffer: npt.NDArray[np.uint8] = np.frombuffer(data, np.uint8)
    size, due = buffer.size, step * (height - 1) + row_bytes
    if size < due:
        raise ImageError("truncated image", f"{size} bytes where {due} are due")

    shape, strides = (height, width, layout.bytes_per_pixel), (step, layout.bytes_per_pixel, 1)
    pixels: npt.NDArray[np.uint8] = np.ndarray(shape, np.uint8, buffer=buffer, strides=strides)
    if layout.grey is not None:
        pixels = pixels[..., 0 if layout.wide and is_bigendian else layout.grey]
        if layout.bytes_per_pixel > 1:
            pixels = np.ascontiguousarray(pixels)
    if layout.conversion is not None:
        pixels = np.asarray(cv2.cvtColor(pixels, layout.conversion), dtype=np.uint8)
    return pixels


def grey_from_compressed(data: ImageData, image_format: str = "") -> GreyImage:
    """Return the grey image in a JPEG, PNG or other file that OpenCV reads.

    `image_format` is the `format` of a sensor_msgs/CompressedImage; it only tells depth images
    apart, the rest is in the data. Raises ImageError, also for a truncated image that a decoder
    would have completed with grey.
    """
    if "compressedDepth" in image_format:
        raise ImageError("depth image", f"format {image_format!r} holds distances, not light")
    encoded = bytes(data)
    if not encoded:
        raise ImageError("empty image", "no data")
    if encoded.startswith(_JPEG_START):
        _check_jpeg(encoded)
    elif encoded.startswith(_PNG_START):
        _check_png(encoded)
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), _DECODE_FLAGS)
    except cv2.error as error:
        raise ImageError("broken image", " ".join(str(error).split())) from None
    if image is None:
        raise ImageError("broken image", "damaged, or in no format that is known here")
    _check_size(image.shape[1], image.shape[0])
    return np.asarray(image, dtype=np.uint8)


def silence_decoders() -> None:
    """Keep OpenCV's decoders from writing to stderr what `ImageError` says already.

    Holds for the whole process. The libraries below OpenCV still write a line now and then.
    """
    if hasattr(cv2, "setLogLevel"):  # until OpenCV 4.12
        cv2.setLogLevel(0)
    else:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _check_size(width: int, height: int) -> None:
    if not (1 <= width <= MAX_SIDE_PX and 1 <= height <= MAX_SIDE_PX):
        raise ImageError("impossible size", f"{width}x{height} pixels")


def _check_png(data: bytes) -> None:
    """Walk through the chunks to the end; a decoder would allocate what a broken length says."""
    at = len(_PNG_START)
    while at + _PNG_CHUNK_FRAME <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"IHDR":
            width, height = data[at + 8 : at + 12], data[at + 12 : at + 16]
            _check_size(int.from_bytes(width, "big"), int.from_bytes(height, "big"))
        at += _PNG_CHUNK_FRAME + length
        if kind == b"IEND" and at <= len(data):
            return
    raise ImageError("truncated image", "PNG without its end")


def _check_jpeg(data: bytes) -> None:
    """Walk through the segments of the header, then look for the end behind it."""
    at = len(_JPEG_START)
    while at + 4 <= len(data):
        at = data.find(b"\xff", at)
        marker = data[at + 1] if 0 <= at < len(data) - 4 else None
        if marker is None:
            break
        if marker == 0xFF:  # filling
            at += 1
            continue
        if marker in _JPEG_LONE_MARKERS:
            at += 2
            continue
        if marker in _JPEG_FRAME_MARKERS:
            height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
            _check_size(int.from_bytes(width, "big"), int.from_bytes(height, "big"))
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _JPEG_SCAN_MARKER:
            # Inside a scan, FF is always followed by 00 or a restart: this end is no accident.
            if data.find(_JPEG_END, at) < 0:
                raise ImageError("truncated image", "JPEG without its end")
            return
    raise ImageError("truncated image", "JPEG without a picture")
