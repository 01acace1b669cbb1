from __future__ import annotations

import io
import itertools
import logging
import os
import subprocess
import sys
import threading
from fractions import Fraction

import av
import numpy as np
import pytest

from fourdface.errors import FourdError, UsageError
from fourdface.media.audio import AudioTrack
from fourdface.media.video import VideoReader, VideoWriter

RATES = [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(2213, 100), Fraction(1350, 61), Fraction(25),
         Fraction(60000, 1001), Fraction(9000, 301), Fraction(99991, 3331)]  # fmt: skip
PATCHES = [
    (40, 180, 60),
    (200, 30, 30),
    (30, 60, 220),
    (255, 255, 255),
    (0, 0, 0),
    (230, 180, 150),
    (90, 60, 40),
    (128, 128, 128),
]


def write(path, kit, frames=20, rate=Fraction(25), width=64, height=48, **options):
    with VideoWriter(path, width, height, rate, **options) as writer:
        for index in range(frames):
            writer.write(kit.counting_picture(width, height, index))
    return path


def patches(width=256, height=64):
    return np.repeat(np.array(PATCHES, np.uint8), width // len(PATCHES), 0)[None].repeat(height, 0)


@pytest.mark.parametrize("rate", RATES)
def test_frame_rate_is_exact(tmp_path, kit, rate):
    facts = kit.facts(write(tmp_path / "a.mp4", kit, 31, rate))
    assert facts.rate == rate
    assert facts.stamps == [k / rate for k in range(31)]
    assert facts.video_end == 31 / rate
    reader = VideoReader(tmp_path / "a.mp4")
    assert reader.rate == rate
    assert [kit.count_of(f.image_u8) for f in reader] == list(range(31))


def test_colours_are_converted_and_tagged(tmp_path, kit):
    with VideoWriter(tmp_path / "a.mp4", 256, 64, 25, crf=1) as writer:
        writer.write(patches())
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)
    assert frame.format.name == "yuv420p"
    planes = [np.array(p).reshape(-1, p.line_size)[:, : p.width] for p in frame.planes]
    for index, (r, g, b) in enumerate(np.array(PATCHES) / 255):
        y = 0.2126 * r + 0.7152 * g + 0.0722 * b
        want = (16 + 219 * y, 128 + 224 * (b - y) / 1.8556, 128 + 224 * (r - y) / 1.5748)
        got = (planes[0][32, 32 * index + 16], planes[1][16, 16 * index + 8], planes[2][16, 16 * index + 8])
        np.testing.assert_allclose(np.array(got, float), want, atol=1.6)


def test_flat_patches_survive_the_round_trip(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 256, 64, 25) as writer:
        writer.write(patches())
    got = next(iter(VideoReader(tmp_path / "a.mp4"))).image_u8[32, 16::32].astype(int)
    error = np.abs(got - np.array(PATCHES))
    assert error.max() <= 4
    assert error.mean() <= 1.5


@pytest.mark.parametrize(("width", "height"), [(63, 48), (64, 47), (33, 33), (1, 1)])
def test_odd_sizes_are_padded_by_one_pixel(tmp_path, kit, width, height, caplog):
    picture = np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8) // 8 + 100
    with caplog.at_level(logging.INFO), VideoWriter(tmp_path / "a.mp4", width, height, 25, crf=5) as writer:
        writer.write(picture)
    assert "padded" in caplog.text
    reader = VideoReader(tmp_path / "a.mp4")
    assert (reader.width, reader.height) == (width + width % 2, height + height % 2)
    got = next(iter(reader)).image_u8[:height, :width]
    assert np.abs(got.astype(int) - picture).mean() < 12


def test_index_is_in_front_and_tags_are_readable(tmp_path, kit):
    tags = {"comment": "synthetic media made by fourd from photo.jpg", "title": "t"}
    path = write(tmp_path / "a.mp4", kit, metadata=tags)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert tags.items() <= kit.facts(path).metadata.items()
    more = {**tags, "fourd_sources": '[{"name": "photo.jpg", "sha256": "00ff"}]', "synthetic_media": "true"}
    assert more.items() <= kit.facts(write(tmp_path / "b.mp4", kit, metadata=more)).metadata.items()


def test_variable_rate(tmp_path, kit):
    times = [0.0, 0.04, 0.08, 0.2, 0.24, 0.24, 0.5]
    with VideoWriter(tmp_path / "a.mp4", 64, 48, 25, variable_rate=True) as writer:
        for index, time in enumerate(times):
            writer.write(kit.counting_picture(64, 48, index), time)
    got = [f.time for f in VideoReader(tmp_path / "a.mp4")]
    np.testing.assert_allclose(got, times, atol=2e-5)
    assert kit.facts(tmp_path / "a.mp4").video_end == Fraction(54, 100)


def test_wrong_calls_are_value_errors(tmp_path):
    with pytest.raises(ValueError, match="positive"):
        VideoWriter(tmp_path / "a.mp4", 0, 4, 25)
    with VideoWriter(tmp_path / "a.mp4", 4, 4, 25) as writer:
        with pytest.raises(ValueError, match=r"expected uint8 \[4,4,3\], got uint8 \[4, 5, 3\]"):
            writer.write(np.zeros((4, 5, 3), np.uint8))
        with pytest.raises(ValueError, match="float64"):
            writer.write(np.zeros((4, 4, 3)))
        with pytest.raises(ValueError, match="variable_rate"):
            writer.write(np.zeros((4, 4, 3), np.uint8), 0.5)


def test_bad_targets_fail_before_the_work(tmp_path):
    with pytest.raises(FourdError, match=r"cannot write .*No such file"):
        VideoWriter(tmp_path / "missing" / "a.mp4", 64, 48, 25)
    with pytest.raises(FourdError, match="cannot write"):
        VideoWriter(tmp_path, 64, 48, 25)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_one_sentence(kit):
    with pytest.raises(FourdError, match="cannot write /dev/full: No space left on device"):
        write("/dev/full", kit, fragmented=True)


def test_pipe_needs_fragments():
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb"), os.fdopen(write_end, "wb") as pipe, pytest.raises(UsageError, match="fragmented"):
        VideoWriter(pipe, 64, 48, 25)


def test_an_error_inside_the_block_is_not_masked(tmp_path):
    with pytest.raises(KeyError, match="mine"), VideoWriter(tmp_path / "a.mp4", 64, 48, 25):
        raise KeyError("mine")


def test_no_frames_is_still_a_file(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 64, 48, 25):
        pass
    with pytest.raises(FourdError):
        VideoReader(tmp_path / "a.mp4")


def test_fragments_go_through_a_pipe(tmp_path, kit):
    sound = kit.Sound(samples=kit.tone(4.0, 44100, 2, burst=1.0))
    driver = VideoReader(kit.Clip(frames=100, sound=sound).write(tmp_path / "d.mp4"))
    read_end, write_end = os.pipe()
    received = io.BytesIO()
    drain = threading.Thread(target=lambda: received.write(os.fdopen(read_end, "rb").read()))
    drain.start()
    with os.fdopen(write_end, "wb") as pipe:
        write(pipe, kit, 100, audio=driver.audio, fragmented=True, metadata={"comment": "synthetic media"})
    drain.join()
    received.seek(0)
    path = tmp_path / "out.mp4"
    path.write_bytes(received.getvalue())
    facts = kit.facts(path)
    assert facts.stamps[0] == 0
    assert len(facts.stamps) == 100
    assert facts.metadata["comment"] == "synthetic media"
    assert kit.onset(path) == pytest.approx(1.0, abs=0.01)
    assert abs(facts.audio_end - facts.video_end) <= Fraction(1, 25)
    assert received.getvalue().count(b"moof") >= 2
    reader = VideoReader(received)
    assert reader.rate == 25
    assert [kit.count_of(f.image_u8) for f in reader] == [k % 32 for k in range(100)]


def test_broken_pipe_passes_as_it_is(kit):
    read_end, write_end = os.pipe()
    os.close(read_end)
    with pytest.raises(BrokenPipeError), os.fdopen(write_end, "wb", buffering=0) as pipe:
        write(pipe, kit, 300, width=256, height=256, fragmented=True)


def test_seekable_file_objects(tmp_path, kit):
    buffer = io.BytesIO()
    write(buffer, kit)
    buffer.seek(0)
    assert len(list(VideoReader(buffer))) == 20


COPIED = {"aac": "aac", "libmp3lame": "mp3float", "ac3": "ac3", "libopus": "opus", "alac": "alac", "flac": "flac"}
ENCODED = ("vorbis", "pcm_s16le", "pcm_f32le", "mp2")


def driver_clip(tmp_path, kit, codec, suffix="mkv", **fields):
    rate = 48000 if codec in ("libopus", "ac3") else 44100
    fields.setdefault("samples", kit.tone(3.0, rate, 2, burst=1.2))
    # libav's own Vorbis encoder calls itself experimental.
    sound = kit.Sound(codec, rate=rate, options={"strict": "-2"} if codec == "vorbis" else None, **fields)
    clip = kit.Clip(frames=75, sound=sound, options={"preset": "ultrafast"})
    return VideoReader(clip.write(tmp_path / f"driver.{suffix}"))


@pytest.mark.parametrize("codec", [*COPIED, *ENCODED])
def test_sound_is_copied_if_mp4_can_carry_it_else_encoded(tmp_path, kit, codec):
    driver = driver_clip(tmp_path, kit, codec)
    path = write(tmp_path / "out.mp4", kit, 75, audio=driver.audio)
    facts = kit.facts(path)
    assert facts.audio_codec == COPIED.get(codec, "aac")
    assert kit.onset(path) == pytest.approx(1.2, abs=0.012)
    assert abs(facts.audio_end - facts.video_end) <= Fraction(1, 25)
    assert abs(facts.audio_start) <= Fraction(1, 25)
    if codec in COPIED:
        source = [bytes(p.packet) for p in driver.audio.packets()]
        with av.open(str(path)) as container:
            copied = [bytes(p) for p in container.demux(audio=0) if p.size]
        assert copied == source[: len(copied)]
        assert len(copied) >= len(source) - 2


@pytest.mark.parametrize("suffix", ["mp4", "ts", "mov", "avi", "flv"])
def test_sound_from_other_containers(tmp_path, kit, suffix):
    driver = driver_clip(tmp_path, kit, "libmp3lame" if suffix == "avi" else "aac", suffix)
    reference = kit.onset(tmp_path / f"driver.{suffix}") - driver.start_time
    path = write(tmp_path / "out.mp4", kit, 75, audio=driver.audio)
    assert kit.onset(path) == pytest.approx(reference, abs=0.006)
    facts = kit.facts(path)
    source_end = kit.facts(tmp_path / f"driver.{suffix}").audio_end - Fraction(driver.start_time).limit_denominator(
        1000
    )
    assert abs(facts.audio_end - min(source_end, facts.video_end)) <= Fraction(1, 25)


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
@pytest.mark.parametrize(("audio_start", "video_start"), [(Fraction(0), Fraction(1, 2)), (Fraction(1, 2), Fraction(0))])
def test_offset_between_sound_and_picture_stays(tmp_path, kit, codec, audio_start, video_start):
    sound = kit.Sound(codec, samples=kit.tone(4.0, 44100, 1, burst=1.5), start=audio_start)
    times = [video_start + Fraction(k, 25) for k in range(75)]
    driver = VideoReader(kit.Clip(frames=75, times=times, sound=sound).write(tmp_path / "d.mkv"))
    path = write(tmp_path / "out.mp4", kit, 75, audio=driver.audio)
    assert kit.onset(path) == pytest.approx(1.5 + float(audio_start - video_start), abs=0.012)
    facts = kit.facts(path)
    assert facts.stamps[0] == 0
    assert abs(facts.audio_end - facts.video_end) <= Fraction(1, 25)
    assert abs(facts.audio_start - max(0, audio_start - video_start)) <= Fraction(1, 25)


@pytest.mark.parametrize("codec", ["aac", "flac", "pcm_s16le"])
def test_sound_is_cut_where_the_picture_ends(tmp_path, kit, codec):
    driver = driver_clip(tmp_path, kit, codec)
    facts = kit.facts(write(tmp_path / "out.mp4", kit, 31, audio=driver.audio))
    assert facts.video_end == Fraction(31, 25)
    assert abs(facts.audio_end - facts.video_end) <= Fraction(1, 25)


def test_short_silent_empty_and_absent_sound(tmp_path, kit):
    silent = driver_clip(tmp_path, kit, "aac", samples=np.zeros((2, 44100), np.float32))
    facts = kit.facts(write(tmp_path / "silent.mp4", kit, 75, audio=silent.audio))
    assert facts.audio_codec == "aac"
    assert facts.audio_end == pytest.approx(1.0, abs=0.05)
    assert facts.video_end == 3
    none = VideoReader(kit.Clip().write(tmp_path / "n.mp4"))
    assert none.audio is None
    assert kit.facts(write(tmp_path / "none.mp4", kit, audio=none.audio)).audio_codec is None
    empty = driver_clip(tmp_path, kit, "pcm_s16le", samples=np.zeros((1, 0), np.float32), suffix="mov")
    facts = kit.facts(write(tmp_path / "empty.mp4", kit, audio=empty.audio))
    assert facts.video_end == Fraction(20, 25)


@pytest.mark.parametrize("codec", [*COPIED, "vorbis", "pcm_s16le"])
def test_blob_holds_the_sound_without_the_file(tmp_path, kit, codec):
    driver = driver_clip(tmp_path, kit, codec)
    track = driver.audio
    blob = track.to_bytes()
    assert blob == track.to_bytes()  # reproducible
    (tmp_path / "driver.mkv").rename(tmp_path / "gone.mkv")
    again = AudioTrack.from_bytes(blob)
    assert (again.codec, again.sample_rate, again.channels) == (track.codec, track.sample_rate, 2)
    (tmp_path / "gone.mkv").rename(tmp_path / "driver.mkv")
    ours, theirs = list(again.packets()), list(track.packets())
    assert [bytes(p.packet) for p in ours] == [bytes(p.packet) for p in theirs]
    np.testing.assert_allclose([float(p.start) for p in ours], [float(p.start) for p in theirs], atol=0.0012)
    (tmp_path / "driver.mkv").unlink()
    path = write(tmp_path / "out.mp4", kit, 75, audio=again)
    assert kit.onset(path) == pytest.approx(1.2, abs=0.012)
    assert AudioTrack.from_bytes(again.to_bytes()).codec == track.codec


def test_blob_of_a_part(tmp_path, kit):
    track = driver_clip(tmp_path, kit, "aac").audio
    part = AudioTrack.from_bytes(track.to_bytes(1.0, 2.0))
    packets = list(part.packets())
    assert 0.85 < packets[0].start < 1.0
    assert 1.95 < packets[-1].start < 2.0


def test_exact_stamps_from_millisecond_containers(tmp_path, kit):
    packets = list(driver_clip(tmp_path, kit, "aac").audio.packets())
    steps = {b.start - a.start for a, b in itertools.pairwise(packets)}
    assert steps == {Fraction(1024, 44100)}


@pytest.mark.parametrize("blob", [b"", b"junk" * 100, b"\x1aE\xdf\xa3" + bytes(100)])
def test_bad_blobs_are_one_sentence(blob):
    with pytest.raises(FourdError, match="sound track inside the file is damaged"):
        AudioTrack.from_bytes(blob)


def test_file_without_sound(tmp_path, kit):
    path = kit.Clip().write(tmp_path / "n.mp4")
    with pytest.raises(FourdError, match="no sound"):
        AudioTrack.from_file(path)


def test_damaged_sound_does_not_end_the_video(tmp_path, kit):
    driver = driver_clip(tmp_path, kit, "pcm_s16le", "mov")
    path = tmp_path / "driver.mov"
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 2000] = bytes(2000)
    path.write_bytes(data)
    assert kit.facts(write(tmp_path / "out.mp4", kit, 75, audio=driver.audio)).video_end == 3


# VmHWM and not ru_maxrss: the latter is inherited from the process that started this one.
MEMORY_SCRIPT = """
import re, sys
from fourdface.media.video import VideoReader, VideoWriter
reader = VideoReader(sys.argv[1])
size = reader.width, reader.height
with VideoWriter(sys.argv[2], *size, reader.rate, audio=reader.audio, preset="ultrafast") as writer:
    for frame in reader:
        writer.write(frame.image_u8)
print(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_length(tmp_path, kit):
    peaks = []
    for frames in (200, 4000):
        sound = kit.Sound(samples=kit.tone(frames / 25, 44100, 1))
        clip = kit.Clip(128, 96, frames=frames, sound=sound, options={"preset": "ultrafast"})
        command = [
            sys.executable,
            "-c",
            MEMORY_SCRIPT,
            str(clip.write(tmp_path / f"{frames}.mp4")),
            str(tmp_path / "o.mp4"),
        ]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    # 3800 frames are 140 MB of pixels.
    assert peaks[1] - peaks[0] < 12_000, peaks


@pytest.mark.real
def test_real_clips_keep_rate_and_sync(tmp_path, kit, test_data):
    clips = sorted((test_data / "driving").glob("*.mp4"))
    assert len(clips) >= 5
    for clip in clips:
        reader = VideoReader(clip)
        count = 0
        with VideoWriter(
            tmp_path / "o.mp4", reader.width, reader.height, reader.rate, audio=reader.audio, preset="ultrafast"
        ) as w:
            for frame in reader:
                w.write(frame.image_u8)
                count += 1
        assert reader.warning is None
        source, out = kit.facts(clip), kit.facts(tmp_path / "o.mp4")
        assert count == len(source.stamps) == len(out.stamps)
        again = VideoReader(tmp_path / "o.mp4")
        assert again.rate == reader.rate
        assert not again.variable_rate
        frame_time = 1 / reader.rate
        assert abs((out.stamps[-1] - out.stamps[0]) - (source.stamps[-1] - source.stamps[0])) <= frame_time
        if source.audio_codec:
            assert out.audio_codec == source.audio_codec
            assert abs(out.audio_start - out.stamps[0]) <= frame_time
            assert abs(out.audio_end - out.video_end) <= frame_time
