from __future__ import annotations

import logging
import random
import struct
from functools import partial
from pathlib import Path

import pytest
from rosbags import rosbag2
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.typesys import Stores, get_typestore
from test_bags import (
    KINDS,
    Message,
    Ros,
    cut_at,
    damaged,
    flipped_at,
    good_bag,
    image_at,
    stamp,
)

from vo_stream.errors import SourceError
from vo_stream.replay.bag_messages import BagMessages, Offer, RawMessage

IMAGE, INFO = "/camera/image_raw", "/camera/camera_info"
ROS2 = get_typestore(Stores.ROS2_JAZZY)
UNLIMITED = QosTime(9223372036, 854775807)
UNLIMITED_IN_FOXY = QosTime(2147483647, 4294967295)


@pytest.fixture(params=KINDS)
def ros(request: pytest.FixtureRequest) -> Ros:
    return Ros(request.param)


def qos(
    reliability: QosReliability = QosReliability.RELIABLE,
    durability: QosDurability = QosDurability.VOLATILE,
    deadline: QosTime = UNLIMITED,
    liveliness: QosLiveliness = QosLiveliness.AUTOMATIC,
) -> Qos:
    return Qos(
        QosHistory.KEEP_LAST, 7, reliability, durability, deadline, UNLIMITED, liveliness,
        UNLIMITED, avoid_ros_namespace_conventions=False,
    )  # fmt: skip


def write_offers(path: Path, offers: dict[str, list[Qos]], count: int = 3) -> Path:
    """Write a bag with one topic of images for each entry, `count` messages each."""
    ros = Ros("mcap")
    with rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        connections = {
            topic: writer.add_connection(
                topic, "sensor_msgs/msg/Image", typestore=ros.store, offered_qos_profiles=profiles
            )
            for topic, profiles in offers.items()
        }
        for i in range(count):
            for connection in connections.values():
                _, kind, recorded_ns, image = image_at(ros, i)
                writer.write(connection, recorded_ns, ros.store.serialize_cdr(image, kind))
    return path


def refused(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        BagMessages(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def read(
    path: Path, *topics: str, start_s: float = 0.0, duration_s: float | None = None
) -> list[RawMessage]:
    with BagMessages(path) as bag:
        return list(bag.messages(topics or tuple(bag.topics), start_s, duration_s))


def seconds(messages: list[RawMessage]) -> list[float]:
    """Return the times of recording, from the first message that the test bags have."""
    return [round((m.recorded_ns - stamp(0)) / 1e9 - 0.005, 3) for m in messages]


def test_messages_come_as_ros2_sends_them(ros: Ros, tmp_path: Path) -> None:
    path = good_bag(ros, tmp_path, count=4)
    with BagMessages(path) as bag:
        assert {t.name: (t.type, t.count) for t in bag.topics.values()} == {
            IMAGE: ("sensor_msgs/msg/Image", 4),
            INFO: ("sensor_msgs/msg/CameraInfo", 4),
        }
        for _ in range(2):  # from the start each time
            messages = list(bag.messages((IMAGE, INFO)))
            assert sorted(m.topic for m in messages) == [INFO] * 4 + [IMAGE] * 4
            assert seconds(messages) == [0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3]
    last = {m.topic: m.data for m in messages}
    image = ROS2.deserialize_cdr(last[IMAGE], "sensor_msgs/msg/Image")
    info = ROS2.deserialize_cdr(last[INFO], "sensor_msgs/msg/CameraInfo")
    assert image.header.stamp.sec == stamp(3) // 10**9  # type: ignore[attr-defined]
    assert set(image.data.tolist()) == {30}  # type: ignore[attr-defined]
    assert info.k[0] == 50.0  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["db3", "mcap"])
def test_bytes_are_those_recorded(kind: str, tmp_path: Path) -> None:
    ros = Ros(kind)
    wanted = [image_at(ros, i) for i in range(3)]
    messages = read(ros.write(tmp_path, wanted))
    assert [m.data for m in messages] == [
        bytes(ros.store.serialize_cdr(content, kind)) for _, kind, _, content in wanted
    ]


def test_some_topics_only(ros: Ros, tmp_path: Path) -> None:
    path = good_bag(ros, tmp_path)
    assert [m.topic for m in read(path, IMAGE)] == [IMAGE] * 5
    with BagMessages(path) as bag:
        assert list(bag.messages(())) == []


@pytest.mark.parametrize(
    ("start_s", "duration_s", "expected"),
    [
        (0.0, None, [0.0, 0.1, 0.2, 0.3, 0.4]),
        (0.15, None, [0.2, 0.3, 0.4]),
        (0.1, 0.2, [0.1, 0.2]),
        (0.0, 0.15, [0.0, 0.1]),
        (9.0, None, []),
    ],
)
def test_a_part_of_the_bag(
    ros: Ros, start_s: float, duration_s: float | None, expected: list[float], tmp_path: Path
) -> None:
    path = good_bag(ros, tmp_path)
    messages = read(path, IMAGE, start_s=start_s, duration_s=duration_s)
    assert seconds(messages) == expected


def test_latched_topics_are_known_from_the_start_on(tmp_path: Path) -> None:
    latched = [qos(durability=QosDurability.TRANSIENT_LOCAL)]
    path = write_offers(tmp_path / "bag", {"/map": latched, "/image": []}, count=5)
    messages = read(path, start_s=0.25)
    assert [m.topic for m in messages[:3]] == ["/map"] * 3
    assert seconds(messages) == [0.25, 0.25, 0.25, 0.3, 0.3, 0.4, 0.4]


@pytest.mark.parametrize(
    ("profiles", "offer"),
    [
        ([], Offer()),
        ([qos()], Offer()),
        ([qos(QosReliability.BEST_EFFORT)], Offer(reliable=False)),
        ([qos(QosReliability.UNKNOWN, QosDurability.UNKNOWN)], Offer()),
        ([qos(durability=QosDurability.TRANSIENT_LOCAL)] * 2, Offer(transient_local=True)),
        ([qos(QosReliability.BEST_EFFORT), qos()], Offer()),
        ([qos(deadline=QosTime(2, 5))], Offer(deadline_ns=2_000_000_005)),
        ([qos(deadline=UNLIMITED_IN_FOXY)], Offer()),
        ([qos(liveliness=QosLiveliness.MANUAL_BY_TOPIC)], Offer(manual=True)),
    ],
)
def test_offers(profiles: list[Qos], offer: Offer, tmp_path: Path) -> None:
    with BagMessages(write_offers(tmp_path / "bag", {"/image": profiles})) as bag:
        topic = bag.topics["/image"]
        assert len(topic.offers) == len(profiles)
        assert topic.offer == offer
        assert topic.latched == offer.transient_local


def test_ros1_types_that_ros2_has_not_are_broken_messages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ros = Ros("bag")
    reading = ros.t["sensor_msgs/msg/Range"](
        header=ros.header(stamp(0)),
        radiation_type=0,
        field_of_view=0.0,
        min_range=0.0,
        max_range=1.0,
        range=0.5,
    )  # ROS 2 has a field more
    ranges: list[Message] = [("/range", "sensor_msgs/msg/Range", stamp(i), reading) for i in (1, 2)]
    messages = read(ros.write(tmp_path, [image_at(ros, 0), *ranges]))
    assert [m.topic for m in messages] == [IMAGE]
    assert ["/range: 2 broken messages" in r.getMessage() for r in caplog.records] == [True]


def test_topics_without_a_message_are_left_out(tmp_path: Path) -> None:
    with BagMessages(write_offers(tmp_path / "bag", {"/image": []}, count=0)) as bag:
        assert bag.topics == {}


def test_what_is_no_bag_is_refused(tmp_path: Path) -> None:
    assert "metadata.yaml" in refused(tmp_path)
    assert "No such file" in refused(tmp_path / "missing.mcap")
    (tmp_path / "text.mcap").write_text("hello")
    assert "no bag" in refused(tmp_path / "text.mcap")


def test_a_broken_bag_ends_there_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ros = Ros("mcap")
    folder = good_bag(ros, tmp_path)
    (file,) = folder.glob("*.mcap")
    image = ros.store.serialize_cdr(ros.image(stamp(0), 0), "sensor_msgs/msg/Image")
    record = b"\x05" + struct.pack("<Q", 22 + len(image))  # how messages begin in an mcap file
    damaged(file, lambda data: data.replace(record, b"\x05" + b"\xff" * 8))
    with BagMessages(folder) as bag:
        for _ in range(3):
            assert list(bag.messages(tuple(bag.topics))) == []
    assert ["cannot be read any further" in r.getMessage() for r in caplog.records] == [True]


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bags_never_crash(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = good_bag(Ros(kind), tmp_path, count=3)
    if kind != "bag":
        (whole,) = whole.glob(f"*.{kind}")
    content = whole.read_bytes()
    path = tmp_path / f"damaged.{kind}"
    dice = random.Random(11)
    caplog.set_level(logging.CRITICAL)
    changes = [partial(cut_at, len(content) * i // 40) for i in range(40)]
    changes += [
        partial(flipped_at, dice.randrange(len(content)), dice.randrange(256)) for _ in range(120)
    ]
    for change in changes:
        path.write_bytes(change(bytearray(content)))
        try:
            messages = read(path)
        except SourceError as error:
            assert "\n" not in str(error)  # noqa: PT017 - messages are as good
            continue
        assert all(isinstance(m.data, bytes) for m in messages)
