"""Which photos are found, which files they become, and which are left to do."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from degrain.errors import UserError
from degrain.inference.photo_list import _matches_pattern, find_photos, listed_types, targets
from degrain.storage.location import Storage

STORAGE = Storage()


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


@pytest.fixture
def trip(tmp_path: Path) -> Path:
    make(tmp_path / "trip", "a.jpg", "B.PNG", "notes.txt", "day1/c.tif", "day1/raw/d.webp")
    make(tmp_path / "trip", "day2/e[1].bmp", "day2/f.jpg")
    return tmp_path / "trip"


def names(*inputs: str | Path, recursive: bool = False, out: Path | None = None) -> list[str]:
    place = STORAGE.locate(out) if out else None
    found = find_photos([str(i) for i in inputs], STORAGE, recursive=recursive, out=place)
    return sorted(photo.name for photo in found.photos)


def test_folders_are_searched_below_only_if_asked(trip: Path) -> None:
    assert names(trip) == ["B.PNG", "a.jpg"]
    everything = ["B.PNG", "a.jpg", "day1/c.tif", "day1/raw/d.webp", "day2/e[1].bmp", "day2/f.jpg"]
    assert names(trip, recursive=True) == everything
    assert names(trip / "day1" / "c.tif") == ["c.tif"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("*", ["B.PNG", "a.jpg"]),
        ("*/*.jpg", ["day2/f.jpg"]),
        ("**/*.jpg", ["a.jpg", "day2/f.jpg"]),
        ("day?/*", ["day1/c.tif", "day2/e[1].bmp", "day2/f.jpg"]),
        ("day[!2]/**/*", ["day1/c.tif", "day1/raw/d.webp"]),
        ("day2/e[1].bmp", ["e[1].bmp"]),
        ("day2/[ef]*", ["e[1].bmp", "f.jpg"]),
        ("day1/**", ["c.tif", "raw/d.webp"]),
    ],
)
def test_patterns_keep_the_path_below_their_part_without_wildcards(
    trip: Path, pattern: str, expected: list[str]
) -> None:
    assert names(f"{trip}/{pattern}") == expected


@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5), st.data())
def test_two_stars_stand_for_any_folders_and_one_for_any_name(
    name: list[str], data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(name)))
    last = data.draw(st.integers(first, len(name)))
    assert _matches_pattern(name, [*name[:first], "**", *name[last:]])
    assert _matches_pattern(name, ["*"] * len(name))
    assert not _matches_pattern(name, ["*"] * (len(name) + 1))
    assert not _matches_pattern([*name, "c"], name)


@given(st.text("abc.*?[]!-^$+(){}|\\", min_size=1, max_size=12))
def test_any_text_is_a_pattern(text: str) -> None:
    assert _matches_pattern(["abc"], [text]) in (True, False)


def test_a_photo_named_twice_is_found_once(trip: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(trip)
    spelled = [trip / "a.jpg", f"{tmp_path}/link/a.jpg", f"{trip}/../trip/a.jpg", f"{trip}/*.jpg"]
    assert names(*spelled) == ["a.jpg"]


def test_photos_inside_the_output_folder_are_left_out(trip: Path) -> None:
    make(trip, "out/a.jpg")
    assert "out/a.jpg" in names(trip, recursive=True)
    assert "out/a.jpg" not in names(trip, recursive=True, out=trip / "out")
    assert names(f"{trip}/out/*", out=trip / "out") == ["a.jpg"]
    assert names(trip / "a.jpg", out=trip) == ["a.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("none.png", "there is no photo '.*none.png'; check the path"),
        ("empty", "there are no photos in the folder"),
        ("*.gif", "no photo matches '.*'; check the pattern"),
    ],
)
def test_nothing_found_is_an_error(trip: Path, text: str, message: str) -> None:
    (trip / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        names(f"{trip}/{text}")


def test_outputs_keep_their_path_and_suffix_unless_a_format_is_named(trip: Path) -> None:
    photos = find_photos([str(trip)], STORAGE, recursive=True).photos
    out = STORAGE.locate("/out")
    assert "/out/day1/raw/d.webp" in [task.target.uri for task in targets(photos, out)]
    as_tiff = [task.target.uri for task in targets(photos, out, "tiff")]
    assert "/out/day1/raw/d.tif" in as_tiff
    assert "/out/B.tif" in as_tiff
    previews = [task.target.uri for task in targets(photos, out, preview=True)]
    assert "/out/day1/c.tif.preview.png" in previews


def test_photos_with_the_same_output_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "in/a.png", "in/a.jpg", "other/a.png")
    out = STORAGE.locate(tmp_path / "out")
    photos = find_photos([str(tmp_path / "in")], STORAGE).photos
    assert len(targets(photos, out)) == 2
    with pytest.raises(UserError, match="would both become"):
        targets(photos, out, "png")
    both = [str(tmp_path / "in" / "a.png"), str(tmp_path / "other" / "a.png")]
    with pytest.raises(UserError, match="denoise them into separate folders"):
        targets(find_photos(both, STORAGE).photos, out)


def test_a_source_is_never_written_over_through_any_spelling(tmp_path: Path) -> None:
    make(tmp_path, "in/a.png")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    photos = find_photos([str(tmp_path / "in" / "a.png")], STORAGE).photos
    for spelled in ("in", "link", "in/../in", "link/../in"):
        with pytest.raises(UserError, match="would be written over; choose another folder"):
            targets(photos, STORAGE.locate(f"{tmp_path}/{spelled}"))


def test_names_with_a_dot_are_left_out_as_in_a_shell(trip: Path) -> None:
    make(trip, "._a.jpg", ".thumbnails/t.jpg", "day1/.trash/t.png", "day1/._c.tif")
    assert names(trip) == ["B.PNG", "a.jpg"]
    everything = ["B.PNG", "a.jpg", "day1/c.tif", "day1/raw/d.webp", "day2/e[1].bmp", "day2/f.jpg"]
    assert names(trip, recursive=True) == everything
    assert names(f"{trip}/**/*") == everything
    assert names(f"{trip}/*") == ["B.PNG", "a.jpg"]
    assert names(f"{trip}/day1/.*") == ["._c.tif"]
    assert names(trip / "._a.jpg") == ["._a.jpg"]


def test_pictures_of_types_that_are_not_read_are_counted(trip: Path) -> None:
    make(trip, "x.HEIC", "day1/y.heic", "day1/z.cr2", "._w.heic", "day1/s.xmp")
    found = find_photos([str(trip), f"{trip}/*"], STORAGE, recursive=True)
    assert found.unread == {"HEIC": 2, "CR2": 1}
    assert listed_types(found.unread) == "2 HEIC, 1 CR2"
    make(trip, "only/a.heic", "only/b.jxl")
    message = "no photos in the folder .*, but 1 HEIC, 1 JXL; convert them to TIFF or PNG"
    with pytest.raises(UserError, match=message):
        names(trip / "only")


def test_no_photo_named_is_wrong_input() -> None:
    with pytest.raises(UserError, match="no photos are named; name files"):
        names()


def test_a_link_to_a_photo_of_the_same_folder_is_a_photo_too(trip: Path) -> None:
    (trip / "link.jpg").symlink_to("a.jpg")
    assert names(trip) == ["B.PNG", "a.jpg", "link.jpg"]
    assert names(trip / "link.jpg", trip) == ["B.PNG", "a.jpg", "link.jpg"]


@pytest.mark.parametrize(
    ("named", "recursive", "expected"),
    [
        ("", False, {"broken links": 2, "pipes or devices": 1}),
        ("", True, {"broken links": 4, "pipes or devices": 2}),
        ("/*.jpg", False, {"broken links": 1, "pipes or devices": 1}),
        ("/**/*", False, {"broken links": 4, "pipes or devices": 2}),
    ],
)
def test_links_that_lead_nowhere_and_pipes_are_counted_and_never_opened(
    trip: Path, named: str, recursive: bool, expected: dict[str, int]
) -> None:
    (trip / "gone.jpg").symlink_to("nowhere.jpg")
    (trip / "album").symlink_to("/unmounted/album")
    (trip / "day1" / "one.jpg").symlink_to("other.jpg")
    (trip / "day1" / "other.jpg").symlink_to("one.jpg")
    (trip / ".#a.jpg").symlink_to("me@host.1:2")  # the lock of an editor
    (trip / "loop").symlink_to(trip)
    os.mkfifo(trip / "pipe.jpg")
    os.mkfifo(trip / "day1" / "pipe")
    found = find_photos([f"{trip}{named}"], STORAGE, recursive=recursive)
    assert found.unread == expected
    assert {photo.name for photo in found.photos} & {"a.jpg", "day1/c.tif"}


def test_a_folder_without_photos_names_what_it_holds(trip: Path) -> None:
    (trip / "links").mkdir()
    (trip / "links" / "a.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(UserError, match=r"no photos in the folder '.*links', but 1 broken links$"):
        names(trip / "links")
    make(trip, "links/a.heic")
    with pytest.raises(UserError, match="but 1 broken links, 1 HEIC; convert them to TIFF or PNG"):
        names(trip / "links")


def test_a_pipe_is_not_opened(trip: Path) -> None:
    os.mkfifo(trip / "pipe.jpg")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        names(trip / "pipe.jpg")
