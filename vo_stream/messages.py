"""The fields of ROS messages, whoever read them: rclpy, or rosbags without ROS."""

from __future__ import annotations

from typing import Any

from vo_stream.camera import CameraModel
from vo_stream.encodings import GreyImage, grey_from_compressed, grey_from_raw
from vo_stream.values import NANOSECONDS


def stamp_ns_of(message: Any) -> int:
    """Return the stamp of a message's header in nanoseconds; 0 where it has none."""
    stamp = message.header.stamp
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def grey_of(message: Any) -> GreyImage:
    """Return the grey image of a sensor_msgs Image or CompressedImage; raises ImageError.

    It may be a view of the message's data.
    """
    if hasattr(message, "format"):
        return grey_from_compressed(message.data, message.format)
    return grey_from_raw(
        message.data,
        message.encoding,
        message.height,
        message.width,
        message.step,
        bool(message.is_bigendian),
    )


def camera_of(message: Any, rectified: bool) -> CameraModel:
    """Return the camera of a sensor_msgs/CameraInfo; raises ConfigError.

    `rectified`: as in `CameraModel.from_camera_info`.
    """
    if hasattr(message, "K"):  # ROS 1 wrote the letters of the formulas
        d, k, p = message.D, message.K, message.P
    else:
        d, k, p = message.d, message.k, message.p
    roi = message.roi
    return CameraModel.from_camera_info(
        message.width,
        message.height,
        message.distortion_model,
        d.tolist(),
        k.tolist(),
        p.tolist(),
        binning=(message.binning_x, message.binning_y),
        roi=(roi.x_offset, roi.y_offset, roi.width, roi.height),
        rectified=rectified,
    )


def camera_info_beside(image_topic: str) -> str:
    """Return where ROS drivers put the CameraInfo of an image topic: in the same namespace."""
    return image_topic.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"


def is_rectified(image_topic: str) -> bool:
    """Return whether a topic's name says that its images are rectified (image_rect...)."""
    name = image_topic.removesuffix("/compressed").rpartition("/")[2]
    return name.startswith("image_rect")
