"""From names to pairs: no pixel is touched."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.support import random_photo, write_png

from degrain.data import embedded
from degrain.data.corpora import Corpus, CorpusOptions, Pair, list_embedded, list_sidd, list_templates, template_pattern
from degrain.errors import UserError
from degrain.imaging.noise import ISO_LEVELS
from degrain.storage import Storage

ANY = CorpusOptions()
FOLDER = "0001_001_S6_00100_00060_3200_L"


def sidd(prefix: str = "", number: str = "010", suffix: str = "PNG", folder: str = FOLDER) -> list[str]:
    return [f"{folder}/{prefix}{kind}_SRGB_{number}.{suffix}" for kind in ("GT", "NOISY")]


@pytest.mark.parametrize("root", ["", "Data/", "a b/SIDD Small/Data/"])
@pytest.mark.parametrize("prefix", ["", "0001_"])
@pytest.mark.parametrize("suffix", ["PNG", "png"])
@pytest.mark.parametrize("number", ["010", "011"])
def test_sidd_names_in_all_their_forms(root: str, prefix: str, suffix: str, number: str) -> None:
    clean, noisy = (root + name for name in sidd(prefix, number, suffix))
    pairs, unplaced = list_sidd([noisy, clean], ANY)
    assert unplaced == []
    assert pairs == [
        Pair(
            id=f"sidd/{FOLDER}/{number}",
            corpus="sidd",
            scene="sidd/001",
            noisy=noisy,
            clean=clean,
            camera="S6",
            iso=100,
            shutter="00060",
            brightness="L",
        )
    ]


def test_sidd_shots_of_one_scene_by_several_phones() -> None:
    other = "0002_001_GP_03200_01600_5500_N"
    pairs, unplaced = list_sidd([*sidd(), *sidd(number="011"), *sidd(folder=other)], ANY)
    assert unplaced == []
    assert [p.id for p in pairs] == [f"sidd/{FOLDER}/010", f"sidd/{FOLDER}/011", f"sidd/{other}/010"]
    assert {p.scene for p in pairs} == {"sidd/001"}
    assert [(p.camera, p.iso, p.brightness) for p in pairs][2] == ("GP", 3200, "N")


def test_sidd_numbers_and_prefixes_are_not_mixed() -> None:
    noisy = [f"{FOLDER}/NOISY_SRGB_010.PNG", f"{FOLDER}/0001_NOISY_SRGB_012.PNG"]
    clean = [f"{FOLDER}/GT_SRGB_011.PNG", f"{FOLDER}/GT_SRGB_012.PNG"]
    pairs, unplaced = list_sidd([*noisy, *clean], ANY)
    assert pairs == []
    assert unplaced == sorted([*noisy, *clean])


@pytest.mark.parametrize(
    "foreign",
    [
        f"{FOLDER}/NOISY_SRGB_011.PNG",  # without its clean photo
        f"{FOLDER}/GT_SRGB_011.PNG",  # without its noisy photo
        "Thumbs.png",
        "NOISY_SRGB_010.PNG",
        "not_a_scene/NOISY_SRGB_010.PNG",
        f"{FOLDER}/NOISY_RAW_010.PNG",
        f"{FOLDER}/NOISY_SRGB_010.PNG.png",
    ],
)
def test_sidd_reports_what_it_cannot_place(foreign: str) -> None:
    pairs, unplaced = list_sidd([*sidd(), foreign], ANY)
    assert len(pairs) == 1
    assert unplaced == [foreign]


def test_a_foreign_pair_of_folders_is_not_sidd() -> None:
    names = sidd(folder="not_a_scene")
    assert list_sidd(names, ANY) == ([], sorted(names))


@settings(max_examples=30, deadline=None)
@given(
    names=st.permutations(
        [*sidd(), *sidd(number="011"), *sidd("0002_", folder="0002_001_GP_03200_01600_5500_N"), "x.png", "y/GT.png"]
    )
)
def test_the_order_of_sidd_names_does_not_matter(names: list[str]) -> None:
    assert list_sidd(names, ANY) == list_sidd(sorted(names), ANY)


def templates(noisy: str, clean: str) -> CorpusOptions:
    return CorpusOptions(noisy_name=noisy, clean_name=clean)


def test_template_fields_become_what_is_known_of_a_pair() -> None:
    options = templates("{camera}/{scene}_{name}_ISO{iso}.jpg", "{camera}/{scene}_clean.png")
    pairs, unplaced = list_templates(["X100/beach_b_ISO3200.jpg", "X100/beach_clean.png"], options)
    assert unplaced == []
    assert pairs == [
        Pair(
            id="pairs/X100/beach_b_ISO3200.jpg",
            corpus="pairs",
            scene="pairs/beach",
            noisy="X100/beach_b_ISO3200.jpg",
            clean="X100/beach_clean.png",
            camera="X100",
            iso=3200,
        )
    ]


def test_default_templates_pair_equal_names_in_two_folders() -> None:
    names = ["noisy/a.png", "noisy/b.png", "clean/a.png", "clean/b.png", "clean/c.png", "noisy/deep/a.png"]
    pairs, unplaced = list_templates(names, ANY)
    assert [(p.noisy, p.clean) for p in pairs] == [(f"noisy/{x}.png", f"clean/{x}.png") for x in "ab"]
    assert unplaced == ["clean/c.png", "noisy/deep/a.png"]


def test_several_noisy_photos_share_a_clean_one_and_its_scene() -> None:
    options = templates("noisy/{name}-{iso}.png", "clean/{name}.png")
    names = ["noisy/a-100.png", "noisy/a-200.png", "noisy/b-100.png", "clean/a.png", "clean/b.png"]
    pairs, unplaced = list_templates(names, options)
    assert unplaced == []
    assert [(p.noisy, p.clean, p.iso) for p in pairs] == [
        ("noisy/a-100.png", "clean/a.png", 100),
        ("noisy/a-200.png", "clean/a.png", 200),
        ("noisy/b-100.png", "clean/b.png", 100),
    ]
    assert len({p.scene for p in pairs}) == 2
    assert pairs[0].scene == pairs[1].scene


def test_a_field_used_twice_means_the_same_text() -> None:
    options = templates("{scene}/{scene}_noisy.png", "{scene}/{scene}.png")
    names = ["a/a_noisy.png", "a/a.png", "a/b_noisy.png", "a/b.png"]
    pairs, unplaced = list_templates(names, options)
    assert [p.noisy for p in pairs] == ["a/a_noisy.png"]
    assert unplaced == ["a/b.png", "a/b_noisy.png"]


def test_a_photo_is_not_its_own_clean_one() -> None:
    assert list_templates(["a.png"], templates("{name}.png", "{name}.png")) == ([], ["a.png"])


@pytest.mark.parametrize("literal", ["(1)", "[x]", "a.b", "a+b*", "100%", "%20", "^$", "a\\d", "ü–日本", "a b", "{{}}"])
def test_template_text_is_literal(literal: str) -> None:
    options = templates(f"{literal}/{{name}}.png", f"clean {literal}/{{name}}.png")
    said = literal.replace("{{}}", "{}")
    pairs, unplaced = list_templates([f"{said}/1.png", f"clean {said}/1.png"], options)
    assert [(p.noisy, p.clean) for p in pairs] == [(f"{said}/1.png", f"clean {said}/1.png")]
    assert unplaced == []


def test_a_dot_in_a_template_is_a_dot() -> None:
    assert template_pattern("noisy/{name}.png").fullmatch("noisy/a_png") is None


@settings(max_examples=60, deadline=None)
@given(name=st.text(st.characters(exclude_characters="/\n", exclude_categories=["Cs"]), min_size=1, max_size=12))
def test_any_file_name_is_taken_literally(name: str) -> None:
    names = [f"noisy/{name}", f"clean/{name}"]
    pairs, unplaced = list_templates(names, ANY)
    assert [(p.noisy, p.clean) for p in pairs] == [tuple(names)]
    assert unplaced == []


@pytest.mark.parametrize(
    ("noisy", "clean", "message"),
    [
        ("noisy/{nmae}.png", "clean/{name}.png", "unknown field '{nmae}' in 'noisy/{nmae}.png'; known: camera, iso"),
        ("noisy/{}.png", "clean/{name}.png", "unknown field '{}'"),
        ("noisy/{name}.png", "clean/{name}_{iso}.png", "has a field {iso} that the noisy one"),
        ("noisy/ISO{iso}.png", "clean/{name}.png", "'noisy/ISO{iso}.png' tells no photos apart"),
        ("noisy/{name}.png", "clean/all.png", "'clean/all.png' tells no photos apart"),
        ("noisy/{name.png", "clean/{name}.png", "cannot read name template 'noisy/{name.png'"),
        ("noisy/{name}}.png", "clean/{name}.png", "cannot read name template"),
    ],
)
def test_a_template_that_cannot_work_is_refused(noisy: str, clean: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        list_templates(["noisy/a.png", "clean/a.png"], templates(noisy, clean))


def test_a_template_with_a_number_format_is_refused() -> None:
    with pytest.raises(UserError, match=re.escape("clean/{name}_{iso:04d}.png")):
        list_templates(["noisy/a_100.png"], templates("noisy/{name}_{iso}.png", "clean/{name}_{iso:04d}.png"))


@settings(max_examples=30, deadline=None)
@given(names=st.permutations([f"{kind}/{x}.png" for kind in ("noisy", "clean") for x in "abc"] + ["z.png", "clean/d.png"]))
def test_the_order_of_names_does_not_matter(names: list[str]) -> None:
    assert list_templates(names, ANY) == list_templates(sorted(names), ANY)


def embedded_names() -> list[str]:
    noisy = [embedded.NOISY_TEMPLATE.format(scene=s, iso=iso) for s in embedded.SPLITS for iso in ISO_LEVELS]
    return noisy + [embedded.CLEAN_TEMPLATE.format(scene=s) for s in embedded.SPLITS]


def test_the_embedded_corpus_has_fixed_splits() -> None:
    pairs, unplaced = list_embedded(embedded_names(), ANY)
    assert unplaced == []
    assert len(pairs) == 21
    assert len({p.id for p in pairs}) == 21
    assert {p.iso for p in pairs} == set(ISO_LEVELS)
    assert {p.scene.removeprefix("embedded/"): p.split for p in pairs} == {
        "astronaut": "train",
        "coffee": "train",
        "hubble": "train",
        "ihc": "train",
        "retina": "train",
        "rocket": "val",
        "chelsea": "test",
    }


def test_a_foreign_pair_among_the_embedded_ones_is_not_placed() -> None:
    foreign = ["clean/mine.png", "noisy/mine_ISO800.png"]
    pairs, unplaced = list_embedded([*embedded_names(), *foreign], ANY)
    assert len(pairs) == 21
    assert unplaced == foreign


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sid=/photos", "unknown corpus 'sid'; did you mean 'sidd'? Known corpora: embedded, pairs, sidd"),
        ("pair=/photos", "did you mean 'pairs'?"),
        ("zzz=/photos", "unknown corpus 'zzz'. Known corpora: embedded, pairs, sidd"),
        ("sidd", "cannot read corpus 'sidd': write NAME=URI, e.g. sidd=s3://bucket/SIDD"),
        ("sidd=", "cannot read corpus 'sidd=': write NAME=URI"),
        ("sidd=ftp://host/photos", "only local paths and s3:// are supported"),
    ],
)
def test_a_corpus_that_cannot_be_read_says_why(text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        Corpus.parse(text, Storage())


def test_an_equals_sign_in_a_path_stays() -> None:
    corpus = Corpus.parse("pairs=/photos/a=b", Storage())
    assert (corpus.adapter, str(corpus.folder)) == ("pairs", "/photos/a=b")


def test_a_folder_is_listed_with_uris_and_sizes(tmp_path: Path) -> None:
    folder = tmp_path / "my photos 100%" / "日本"
    clean = write_png(folder / "clean/a.png", random_photo(8, 8))
    noisy = write_png(folder / "noisy/a.png", random_photo(8, 8, 1))
    stray = write_png(folder / "stray.PNG", random_photo(8, 8))
    (folder / "notes.txt").write_text("no photo")
    pairs, unplaced = Corpus.parse(f"pairs={folder}", Storage()).list_pairs(ANY)
    assert [(p.id, p.noisy, p.clean) for p in pairs] == [("pairs/noisy/a.png", noisy, clean)]
    assert pairs[0].encoded_bytes == Path(noisy).stat().st_size + Path(clean).stat().st_size
    assert unplaced == [stray]


def test_a_missing_folder_and_one_without_pairs_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"there is no folder '{tmp_path}/none'; check the path of corpus 'sidd'"):
        Corpus.parse(f"sidd={tmp_path}/none", Storage()).list_pairs(ANY)
    write_png(tmp_path / "a.png", random_photo(8, 8))
    with pytest.raises(UserError, match=rf"no pairs in '{tmp_path}' \(1 files\): its names are not those of corpus 'sidd'"):
        Corpus.parse(f"sidd={tmp_path}", Storage()).list_pairs(ANY)
