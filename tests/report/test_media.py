from harness.report.media import Media


def made(*clips):
    media = Media()
    return media, [media.add(data, "audio/flac") for data in clips]


def test_few_clips_lie_in_the_page(tmp_path):
    media, (one,) = made(b"abc")
    media.place(tmp_path / "page", most=3)
    assert one.source == "data:audio/flac;base64,YWJj"
    assert not (tmp_path / "page").exists()


def test_many_lie_beside_it_equal_ones_once_and_those_of_an_earlier_page_go(tmp_path):
    beside = tmp_path / "page"
    beside.mkdir()
    (beside / "old.flac").write_bytes(b"old")
    (beside / "mine.txt").write_text("not ours")
    media, clips = made(b"abc", b"abc", b"defg")
    media.place(beside, most=9)
    assert clips[0].source == clips[1].source != clips[2].source
    assert [(tmp_path / clip.source).read_bytes() for clip in clips] == [b"abc", b"abc", b"defg"]
    assert {path.name for path in beside.iterdir()} == {clip.source.split("/")[1] for clip in clips} | {"mine.txt"}


def test_a_page_that_has_become_small_takes_its_sounds_back(tmp_path):
    media, _ = made(b"abcd")
    media.place(tmp_path / "page", most=3)
    media, _ = made(b"abcd")
    media.place(tmp_path / "page", most=4)
    assert not (tmp_path / "page").exists()
