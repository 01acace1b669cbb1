from __future__ import annotations

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fourdface.errors import FourdError
from fourdface.media.audio import AudioTrack, can_copy, opus_samples
from fourdface.media.video import VideoReader, VideoWriter


@pytest.mark.parametrize("milliseconds", [2.5, 5, 10, 20, 40, 60])
def test_opus_packet_lengths(tmp_path, kit, milliseconds):
    sound = kit.Sound("libopus", rate=48000, options={"frame_duration": str(milliseconds), "application": "lowdelay"})
    path = kit.Clip(sound=sound).write(tmp_path / "a.mkv")
    with av.open(str(path)) as container:
        lengths = {opus_samples(bytes(packet)) for packet in container.demux(audio=0) if packet.size}
    assert lengths == {round(48 * milliseconds)}


@given(st.binary(max_size=3))
def test_opus_lengths_of_any_bytes_are_sane(head):
    assert 0 <= opus_samples(head) <= 63 * 2880
    assert opus_samples(b"") == 0


@pytest.fixture(scope="module")
def blobs(tmp_path_factory, kit):
    folder = tmp_path_factory.mktemp("blobs")
    tone = kit.tone(0.5, 48000, 1)
    return [
        VideoReader(kit.Clip(sound=kit.Sound(codec, tone, 48000)).write(folder / f"{codec}.mkv")).audio.to_bytes()
        for codec in ("aac", "libopus", "pcm_s16le")
    ]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_fuzzed_blobs(blobs, data):
    raw = bytearray(data.draw(st.sampled_from(blobs)))
    for _ in range(data.draw(st.integers(1, 10))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(len(raw) // 3, len(raw)))]
    try:
        track = AudioTrack.from_bytes(bytes(raw))
    except FourdError as error:
        assert "\n" not in str(error)
        return
    for timed in track.packets():
        assert timed.duration >= 0
    for _ in track.frames():
        pass
    can_copy(track)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_video_is_written_whatever_the_sound_is(blobs, data, tmp_path_factory):
    raw = bytearray(data.draw(st.sampled_from(blobs)))
    for _ in range(data.draw(st.integers(1, 40))):
        raw[data.draw(st.integers(len(raw) // 4, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        track = AudioTrack.from_bytes(bytes(raw))
    except FourdError:
        return
    path = tmp_path_factory.mktemp("out") / "a.mp4"
    with VideoWriter(path, 32, 32, 25, audio=track, preset="ultrafast") as writer:
        for _ in range(12):
            writer.write(np.zeros((32, 32, 3), np.uint8))
    assert len(list(VideoReader(path))) == 12
