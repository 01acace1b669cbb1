from __future__ import annotations

import io
import itertools
import os
import threading
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fourdface.errors import FourdError
from fourdface.media.colour import orientation_of, source_matrix, source_range, upright
from fourdface.media.hdr import map_to_srgb
from fourdface.media.timing import fit_timing, limit
from fourdface.media.video import ImageFolderReader, VideoReader, open_video

CONTAINERS = {
    "mp4": {}, "mov": {}, "mkv": {}, "avi": {"codec": "mpeg4"}, "webm": {"codec": "libvpx-vp9"}, "ts": {},
    "flv": {}, "mpg": {"codec": "mpeg2video"}, "nut": {"codec": "ffv1"},
    "gif": {"codec": "gif", "pix_fmt": "rgb8"},
}  # fmt: skip


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_every_container_gives_all_frames_in_order(tmp_path, kit, suffix):
    fields = CONTAINERS[suffix]
    if fields.get("codec") and fields["codec"] not in av.codecs_available:
        pytest.skip(f"PyAV here has no {fields['codec']}")
    path = kit.Clip(**fields, frames=24).write(tmp_path / f"a.{suffix}")
    reader = VideoReader(path)
    frames = list(reader)
    assert reader.rate == 25
    assert not reader.variable_rate
    assert (reader.width, reader.height) == (64, 48)
    assert reader.warning is None
    assert [f.index for f in frames] == list(range(24))
    assert reader.count_hint == 24
    np.testing.assert_allclose([f.time for f in frames], np.arange(24) / 25, atol=0.0011)
    assert [kit.count_of(f.image_u8) for f in frames] == list(range(24))
    assert frames[0].image_u8.dtype == np.uint8
    assert frames[0].image_u8.flags.c_contiguous
    assert frames[0].image_u8.flags.writeable


def test_reordered_frames_in_avi_have_regular_times(tmp_path, kit):
    reader = VideoReader(kit.Clip(frames=30, options={"bf": "3"}).write(tmp_path / "a.avi"))
    frames = list(reader)
    np.testing.assert_allclose([f.time for f in frames], np.arange(30) / 25, atol=1e-9)
    assert [kit.count_of(f.image_u8) for f in frames] == list(range(30))


def test_reading_twice_and_stopping_early(tmp_path, kit):
    reader = VideoReader(kit.Clip().write(tmp_path / "a.mp4"))
    assert next(iter(reader)).index == 0
    assert len(list(reader)) == len(list(reader)) == 20
    with reader as again:
        assert again is reader


RATES = [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(2213, 100), Fraction(1350, 61), Fraction(15),
         Fraction(60),          Fraction(60000, 1001), Fraction(25, 2), Fraction(1000, 33)]  # fmt: skip


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_rates_are_exact(tmp_path, kit, rate, suffix):
    path = kit.Clip(rate=rate, frames=40, options={"preset": "ultrafast"}).write(tmp_path / f"a.{suffix}")
    reader = VideoReader(path)
    assert not reader.variable_rate
    if suffix == "mp4":
        assert reader.rate == rate
    else:
        # Matroska stores nanoseconds a frame and millisecond stamps.
        assert abs(float(reader.rate / rate) - 1) < 2e-5
        if rate in (Fraction(30000, 1001), Fraction(24000, 1001), 15, 60):
            assert reader.rate == rate


def test_variable_rate_keeps_true_times_and_the_mean(tmp_path, kit):
    times = [Fraction(k, 30) for k in (0, 1, 2, 5, 6, 7, 8, 12, 13, 14)]
    path = kit.Clip(rate=Fraction(30), frames=10, times=times).write(tmp_path / "v.mp4")
    reader = VideoReader(path)
    assert reader.variable_rate
    np.testing.assert_allclose([f.time for f in reader], [float(t) for t in times], atol=1e-6)
    assert reader.rate == pytest.approx(10 / (14 / 30 + 1 / 30), rel=0.1)


def test_start_time_is_taken_off(tmp_path, kit):
    times = [Fraction(k + 13, 25) for k in range(10)]
    reader = VideoReader(kit.Clip(frames=10, times=times).write(tmp_path / "v.mkv"))
    frames = list(reader)
    assert frames[0].time == 0
    assert frames[-1].time == pytest.approx(9 / 25, abs=0.0011)
    assert reader.start_time == pytest.approx(13 / 25, abs=0.001)
    assert reader.rate == 25


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("hflip", [False, True])
def test_rotation_flags_are_applied(tmp_path, kit, rotation, hflip):
    picture = kit.corner_picture(96, 48)
    clip = kit.Clip(96, 48, frames=2, picture=lambda _: picture, rotation=rotation, hflip=hflip, pix_fmt="yuv444p")
    reader = VideoReader(clip.write(tmp_path / "r.mp4"))
    # The display matrix turns anticlockwise by `rotation`, then mirrors.
    want = np.rot90(picture, rotation // 90)
    want = want[:, ::-1] if hflip else want
    got = next(iter(reader)).image_u8
    assert (reader.height, reader.width) == want.shape[:2] == got.shape[:2]
    assert np.abs(got[6:-6, 6:-6].astype(int) - want[6:-6, 6:-6]).mean() < 6
    assert got.flags.c_contiguous


@given(st.integers(0, 3), st.booleans(), st.integers(1, 40000))
def test_orientation_is_found_for_all_eight(turns, mirrored, scale):
    # Row vectors times the matrix turn clockwise (y points down).
    angle = -np.pi / 2 * turns
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * scale
    if mirrored:
        matrix = np.diag([-1, 1]) @ matrix
    data = np.zeros((3, 3), np.int32)
    data[:2, :2] = np.rint(matrix)
    assert orientation_of(data.tobytes()) == (turns, mirrored)
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    expected = np.rot90(image[:, ::-1] if mirrored else image, turns)
    np.testing.assert_array_equal(upright(image, turns, mirrored), expected)


def test_no_or_short_matrix_is_upright():
    assert orientation_of(None) == (0, False)
    assert orientation_of(b"1234") == (0, False)


WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
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


def ycbcr(rgb, matrix, full, bits=8):
    """ITU-R BT.601/709/2020 by the book, as an independent truth."""
    kr, kb = WEIGHTS[matrix]
    r, g, b = (value / 255 for value in rgb)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    scale = 1 << (bits - 8)
    if full:
        top = (256 << (bits - 8)) - 1
        return top * y, 128 * scale + top * cb, 128 * scale + top * cr
    return scale * (16 + 219 * y), scale * (128 + 224 * cb), scale * (128 + 224 * cr)


def patch_frame(pix_fmt, width, height, matrix, full):
    """A frame with vertical stripes of the patches, planes filled by the formulas."""
    frame = av.VideoFrame(width, height, pix_fmt)
    bits = 10 if "10" in pix_fmt else 8
    stripe = width // len(PATCHES)
    values = [ycbcr(rgb, matrix, full, bits) for rgb in PATCHES]
    for index, plane in enumerate(frame.planes):
        row = np.repeat([v[index] for v in values], stripe if plane.width == width else stripe // 2)
        dtype = np.uint16 if bits > 8 else np.uint8
        data = np.zeros((plane.height, plane.line_size // dtype().itemsize), dtype)
        data[:, : len(row)] = np.rint(row)
        plane.update(data.tobytes())
    return frame


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [1, 5, 6, 7, 9])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "yuv444p"])
def test_colours_follow_the_tags(tmp_path, kit, matrix, full, pix_fmt):
    def planes(_):
        frame = patch_frame(pix_fmt, 256, 32, matrix, full)
        frame.colorspace, frame.color_range = matrix, 2 if full else 1
        return frame

    clip = kit.Clip(
        256, 32, frames=2, codec="ffv1", pix_fmt=pix_fmt, planes=planes, color=(matrix, 2 if full else 1, 2, 2)
    )
    got = next(iter(VideoReader(clip.write(tmp_path / "c.mkv")))).image_u8[16, 16::32]
    assert np.abs(got.astype(int) - np.array(PATCHES)).max() <= 2


@pytest.mark.parametrize(("height", "matrix"), [(718, 5), (720, 1)])
def test_untagged_video_is_601_below_720_lines_and_709_from_there(tmp_path, kit, height, matrix):
    clip = kit.Clip(
        256, height, frames=1, codec="ffv1", planes=lambda _: patch_frame("yuv420p", 256, height, matrix, False)
    )
    got = next(iter(VideoReader(clip.write(tmp_path / "c.mkv")))).image_u8[100, 16::32]
    assert np.abs(got.astype(int) - np.array(PATCHES)).max() <= 2


def test_untagged_jpeg_and_formats():
    assert source_matrix(2, 1080, "mjpeg") == 5
    assert source_range(0, "yuvj420p") == 2
    assert source_range(0, "gray") == 2
    assert source_range(0, "yuv420p") == 1
    assert source_range(2, "yuv420p") == 2


@pytest.mark.parametrize("curve", [16, 18])
def test_high_dynamic_range_is_mapped_and_not_washed_out(tmp_path, kit, curve):
    signal = np.linspace(0, 1, 16)
    ramp = np.repeat(signal, 16)[None, :, None].repeat(32, 0).repeat(3, 2)

    def planes(_):
        frame = av.VideoFrame.from_ndarray((ramp * 65535).astype(np.uint16), "rgb48le")
        frame = frame.reformat(format="yuv420p10le", dst_colorspace=9, dst_color_range=1)
        frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range = 9, 9, curve, 1
        return frame

    tags = (9, 1, 9, curve)
    clip = kit.Clip(256, 32, frames=2, codec="ffv1", pix_fmt="yuv420p10le", planes=planes, color=tags)
    frames = list(VideoReader(clip.write(tmp_path / "h.mkv")))
    assert len(frames) == 2
    grey = frames[1].image_u8[16, 8::16].astype(int)
    assert np.ptp(grey, axis=1).max() <= 2  # neutral stays neutral
    want = 255 * map_to_srgb(signal[:, None].repeat(3, 1), curve, 9)
    assert np.abs(grey - want).max() <= 3


def test_transparent_video_is_composited_over_white(tmp_path, kit):
    rgba = np.zeros((48, 64, 4), np.uint8)
    rgba[:24] = (200, 10, 20, 255)
    clip = kit.Clip(codec="png", pix_fmt="rgba", frames=1, planes=lambda _: av.VideoFrame.from_ndarray(rgba, "rgba"))
    got = next(iter(VideoReader(clip.write(tmp_path / "a.mov")))).image_u8
    assert got[10, 10].tolist() == [200, 10, 20]
    assert got[40, 10].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("width", "height"), [(63, 47), (1, 1), (17, 2), (65, 33)])
def test_odd_sizes(tmp_path, kit, width, height):
    clip = kit.Clip(width, height, frames=3, codec="ffv1", pix_fmt="yuv444p")
    reader = VideoReader(clip.write(tmp_path / "o.mkv"))
    assert (reader.width, reader.height) == (width, height)
    assert all(f.image_u8.shape == (height, width, 3) for f in reader)


def test_non_square_pixels_are_stretched(tmp_path, kit):
    reader = VideoReader(kit.Clip(sample_aspect=Fraction(4, 3)).write(tmp_path / "s.mp4"))
    assert (reader.width, reader.height) == (85, 48)
    assert next(iter(reader)).image_u8.shape == (48, 85, 3)


def combing(image_u8):
    grey = image_u8.astype(float).mean(2)
    return np.abs(2 * grey[1:-1] - grey[:-2] - grey[2:]).mean()


def test_interlaced_frames_are_deinterlaced(tmp_path, kit):
    def picture(index):
        image = np.full((96, 128, 3), 40, np.uint8)
        for field in (0, 1):  # a bar that moves between the two fields of a frame
            at = 10 + 8 * index + 4 * field
            image[field::2, at : at + 12] = 220
        return image

    clip = kit.Clip(128, 96, frames=8, picture=picture, options={"x264-params": "interlaced=1:tff=1", "crf": "8"})
    path = clip.write(tmp_path / "i.mp4")
    raw = [f.image_u8 for f in VideoReader(path, deinterlace=False)]
    reader = VideoReader(path)
    smooth = list(reader)
    assert len(smooth) == len(raw) == 8
    np.testing.assert_allclose([f.time for f in smooth], np.arange(8) / 25, atol=1e-6)
    assert np.mean([combing(f.image_u8) for f in smooth]) < 0.5 * np.mean([combing(image) for image in raw])
    assert reader.rate == 25


def test_hidden_reference_frames_are_not_counted(tmp_path, kit):
    kit.Clip(frames=30, codec="libvpx", options={"auto-alt-ref": "0"}).write(tmp_path / "plain.webm")
    with (
        av.open(str(tmp_path / "plain.webm")) as source,
        av.open(str(tmp_path / "hidden.webm"), "w") as output,
    ):
        stream = output.add_stream_from_template(source.streams.video[0])
        for index, packet in enumerate(p for p in source.demux(video=0) if p.size):
            packet.stream = stream
            output.mux_one(packet)
            if index % 7 == 3:  # after some frames a copy with its "show" bit cleared, as encoders put references
                data = bytearray(bytes(packet))
                data[0] &= 0xEF
                hidden = av.Packet(bytes(data))
                hidden.stream, hidden.time_base = stream, packet.time_base
                hidden.pts = hidden.dts = packet.pts + 39
                output.mux_one(hidden)
    reader = VideoReader(tmp_path / "hidden.webm")
    assert (reader.rate, reader.variable_rate, reader.count_hint) == (25, False, 30)
    assert len(list(reader)) == 30


@pytest.mark.parametrize("interlaced", [False, True])
def test_size_that_changes_on_the_way(tmp_path, kit, interlaced):
    options = {"x264-params": "interlaced=1:tff=1"} if interlaced else {}
    data = b""
    for size in ((64, 48), (96, 64)):
        data += kit.Clip(*size, frames=10, options=options).write(tmp_path / "part.ts").read_bytes()
    (tmp_path / "joined.ts").write_bytes(data)
    reader = VideoReader(tmp_path / "joined.ts")
    frames = list(reader)
    assert len(frames) == 20
    assert all(f.image_u8.shape == (48, 64, 3) for f in frames)
    assert all(a.time < b.time for a, b in itertools.pairwise(frames))


def test_stream_without_seek_is_spooled(tmp_path, kit):
    data = kit.Clip().write(tmp_path / "a.mp4").read_bytes()
    reader_end, writer_end = os.pipe()
    feeder = threading.Thread(target=lambda: os.fdopen(writer_end, "wb").write(data))
    feeder.start()
    with os.fdopen(reader_end, "rb") as stream:
        reader = VideoReader(stream)
    feeder.join()
    spooled = reader._path
    assert len(list(reader)) == 20
    del reader
    assert not spooled.exists()


def expect_sentence(path, *words):
    with pytest.raises(FourdError) as error:
        list(VideoReader(path))
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    for word in words:
        assert word in text, text


def test_bad_input_is_one_sentence(tmp_path, kit):
    good = kit.Clip(frames=30).write(tmp_path / "good.mp4").read_bytes()
    sound = kit.Sound(samples=kit.tone(0.5, 44100, 1))
    for name, data, words in (
        ("zero.mp4", b"", ("zero.mp4", "empty")),
        ("text.mp4", b"I am a text file, renamed.\n" * 50, ("plain text", "video")),
        ("list.mp4", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n", ("plain text",)),
        ("concat.mp4", b"ffconcat version 1.0\nfile good.mp4\n", ("plain text",)),
        ("cut.mp4", good[: len(good) // 2], ("cut.mp4", "moov")),
        ("hdf.mp4", b"\x89HDF\r\n\x1a\n" + bytes(200), ("HDF5",)),
        ("noise.mp4", np.random.default_rng(1).bytes(4000), ("no known kind",)),
    ):
        (tmp_path / name).write_bytes(data)
        expect_sentence(tmp_path / name, *words)
    expect_sentence(tmp_path / "missing.mp4", "does not exist")
    expect_sentence(tmp_path, "is a folder")
    audio_only = tmp_path / "only.m4a"
    with av.open(str(audio_only), "w") as output:
        stream = output.add_stream("aac", rate=44100, layout="mono")
        kit.Clip(sound=sound)._write_sound(output, stream)
    expect_sentence(audio_only, "sound only")


def test_cover_art_is_not_a_video(tmp_path, kit):
    path = tmp_path / "cover.m4a"
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=44100, layout="mono")
        art = output.add_stream("png", rate=1)
        art.width = art.height = 16
        art.pix_fmt = "rgb24"
        art.disposition = av.stream.Disposition.attached_pic
        output.start_encoding()
        output.mux(art.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24")))
        output.mux(art.encode(None))
        kit.Clip(sound=kit.Sound(samples=kit.tone(0.5, 44100, 1)))._write_sound(output, stream)
    expect_sentence(path, "sound only")


def test_truncated_with_index_in_front_gives_the_frames_before(tmp_path, kit):
    path = kit.Clip(frames=60, container_options={"movflags": "faststart"}, options={"g": "10"}).write(
        tmp_path / "a.mp4"
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.7)])
    reader = VideoReader(path)
    frames = list(reader)
    assert 5 < len(frames) < 60
    assert [kit.count_of(f.image_u8) for f in frames] == [k % 32 for k in range(len(frames))]
    assert "cut short" in reader.warning
    assert "\n" not in reader.warning


def test_truncated_matroska_gives_the_frames_before(tmp_path, kit):
    path = kit.Clip(frames=60, options={"g": "10"}).write(tmp_path / "a.mkv")
    path.write_bytes(path.read_bytes()[:-1200])
    reader = VideoReader(path)
    assert 5 < len(list(reader)) < 60


def test_damaged_packets_are_skipped_and_counted(tmp_path, kit):
    path = kit.Clip(frames=40, codec="mjpeg", pix_fmt="yuvj420p").write(tmp_path / "a.mkv")
    with av.open(str(path)) as container:
        sizes = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for position, size in sizes[10:13]:
        at = data.index(b"\xff\xd8", position)
        data[at : at + size - 8] = bytes(size - 8)
    path.write_bytes(data)
    reader = VideoReader(path)
    frames = list(reader)
    assert len(frames) == 37
    assert reader.bad_packets == 3
    assert "3 packets" in reader.warning
    assert frames[10].time == pytest.approx(13 / 25, abs=0.002)


@pytest.fixture(scope="module")
def fuzz_seeds(tmp_path_factory, kit):
    folder = tmp_path_factory.mktemp("fuzz")
    sound = kit.Sound(samples=kit.tone(0.4, 22050, 1), rate=22050)
    return [
        kit.Clip(32, 32, frames=6, sound=sound).write(folder / "a.mp4").read_bytes(),
        kit.Clip(32, 32, frames=6, sound=sound, options={"preset": "ultrafast"}).write(folder / "a.mkv").read_bytes(),
        kit.Clip(32, 32, frames=4, codec="gif", pix_fmt="rgb8").write(folder / "a.gif").read_bytes(),
    ]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_fuzzed_files_raise_nothing_but_one_sentence(fuzz_seeds, data):
    raw = bytearray(data.draw(st.sampled_from(fuzz_seeds)))
    for _ in range(data.draw(st.integers(1, 12))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(len(raw) // 2, len(raw)))]
    try:
        reader = VideoReader(io.BytesIO(bytes(raw)))
        frames = list(reader)
    except FourdError as error:
        assert "\n" not in str(error)
    else:
        assert all(f.image_u8.shape == (reader.height, reader.width, 3) for f in frames)
        assert all(a.time < b.time for a, b in itertools.pairwise(frames))


@settings(max_examples=150, deadline=None)
@given(
    st.fractions(1, 240, max_denominator=1001),
    st.integers(2, 400),
    st.sampled_from([90000, 600, 1_000_000]),
    st.integers(-500, 9000),
)
def test_rate_of_exact_grids(rate, count, scale, start):
    base = 1 / (rate * scale)
    ticks = np.arange(count) * scale + start
    timing = fit_timing(np.random.default_rng(0).permutation(ticks), base, [])
    assert timing.rate == limit(rate)
    assert not timing.variable
    assert timing.count == count


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([24, 25, 30, Fraction(30000, 1001), Fraction(24000, 1001), 60, Fraction(25, 2)]),
    st.integers(2, 3000),
)
def test_rate_of_rounded_grids(rate, count):
    ticks = np.array([round(k * 1000 / Fraction(rate)) for k in range(count)])
    timing = fit_timing(ticks, Fraction(1, 1000), [None, Fraction(rate), Fraction(1000)])
    assert timing.rate == rate
    assert not timing.variable


def test_rate_of_one_frame_and_of_nothing():
    assert fit_timing(np.array([5]), Fraction(1, 90), [Fraction(7)]).rate == 7
    assert fit_timing(np.array([], np.int64), Fraction(1, 90), [Fraction(90000), None]).rate == 25


@given(st.fractions(Fraction(1, 100), 1000))
def test_limit_is_close_and_fits(rate):
    got = limit(rate)
    assert abs(float(got / rate) - 1) < 1e-5
    assert got.numerator <= 10**6
    assert got.denominator <= 10**6


def test_folder_of_pictures_is_a_video(tmp_path, kit):
    from fourdface.media.image import encode_png

    for index in range(12):
        (tmp_path / f"f{index}.png").write_bytes(encode_png(kit.counting_picture(32, 24, index)))
    (tmp_path / "f3.png").write_bytes(b"broken")
    (tmp_path / "f5.png").write_bytes(encode_png(kit.counting_picture(64, 48, 5)))
    reader = open_video(tmp_path, rate=Fraction(30000, 1001))
    assert isinstance(reader, ImageFolderReader)
    frames = list(reader)
    assert [kit.count_of(f.image_u8) for f in frames] == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11]
    assert (reader.width, reader.height, reader.rate, reader.audio) == (32, 24, Fraction(30000, 1001), None)
    assert frames[3].time == pytest.approx(3 * 1001 / 30000)
    assert reader.bad_packets == 1
    assert "f3.png" in reader.warning


def test_empty_and_bad_folders(tmp_path):
    with pytest.raises(FourdError, match="no pictures"):
        open_video(tmp_path)
    (tmp_path / "a.png").write_bytes(b"broken")
    with pytest.raises(FourdError, match="none of the 1 pictures"):
        open_video(tmp_path)


def test_open_video_reads_files_and_single_pictures(tmp_path, kit):
    assert len(list(open_video(kit.Clip().write(tmp_path / "a.mp4")))) == 20
    from fourdface.media.image import encode_png

    (tmp_path / "one.png").write_bytes(encode_png(kit.corner_picture(40, 30)))
    frames = list(open_video(tmp_path / "one.png"))
    assert len(frames) == 1
    np.testing.assert_array_equal(frames[0].image_u8, kit.corner_picture(40, 30))
