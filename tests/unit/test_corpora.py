"""From names to pairs: no pixel is touched."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.support import random_photo, write_png

from degrain.data import embedded
from degrain.data.corpora import (
    ADAPTERS,
    Corpus,
    CorpusOptions,
    Pair,
    list_clean,
    list_embedded,
    list_nind,
    list_polyu,
    list_renoir,
    list_sidd,
    list_templates,
)
from degrain.data.templates import template_pattern
from degrain.errors import UserError
from degrain.imaging.noise import ISO_LEVELS
from degrain.storage import Storage

ANY = CorpusOptions()
STORAGE = Storage()
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
        (
            "sid=/photos",
            "unknown corpus 'sid'; did you mean 'sidd'? Known corpora: clean, embedded, nind, pairs, polyu, renoir, sidd",
        ),
        ("pair=/photos", "did you mean 'pairs'?"),
        ("zzz=/photos", "unknown corpus 'zzz'. Known corpora: clean, embedded, nind, pairs, polyu, renoir, sidd"),
        ("sidd", "cannot read corpus 'sidd': write NAME=URI, e.g. sidd=s3://bucket/SIDD"),
        ("sidd=", "cannot read corpus 'sidd=': write NAME=URI"),
        ("sidd=ftp://host/photos", "only local paths and s3:// are supported"),
    ],
)
def test_a_corpus_that_cannot_be_read_says_why(text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        Corpus.parse(text, STORAGE)


def test_an_equals_sign_in_a_path_stays() -> None:
    corpus = Corpus.parse("pairs=/photos/a=b", STORAGE)
    assert (corpus.adapter, str(corpus.folder)) == ("pairs", "/photos/a=b")


def test_a_folder_is_listed_with_uris_and_sizes(tmp_path: Path) -> None:
    folder = tmp_path / "my photos 100%" / "日本"
    clean = write_png(folder / "clean/a.png", random_photo(8, 8))
    noisy = write_png(folder / "noisy/a.png", random_photo(8, 8, 1))
    stray = write_png(folder / "stray.PNG", random_photo(8, 8))
    (folder / "notes.txt").write_text("no photo")
    pairs, unplaced = Corpus.parse(f"pairs={folder}", STORAGE).list_pairs(ANY)
    assert [(p.id, p.noisy, p.clean) for p in pairs] == [("pairs/noisy/a.png", noisy, clean)]
    assert pairs[0].encoded_bytes == Path(noisy).stat().st_size + Path(clean).stat().st_size
    assert unplaced == [stray]


def test_a_missing_folder_and_one_without_pairs_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"there is no folder '{tmp_path}/none'; check the path of corpus 'sidd'"):
        Corpus.parse(f"sidd={tmp_path}/none", STORAGE).list_pairs(ANY)
    write_png(tmp_path / "a.png", random_photo(8, 8))
    with pytest.raises(UserError, match=rf"no pairs in '{tmp_path}' \(1 files\): its names are not those of corpus 'sidd'"):
        Corpus.parse(f"sidd={tmp_path}", STORAGE).list_pairs(ANY)


def renoir(camera: str = "Mi3", batch: str = "001", kinds: tuple[str, ...] = ("Noisy", "Reference")) -> list[str]:
    return [f"{camera}_Aligned/Batch_{batch}/IMG_20160202_0152{i}{kind}.bmp" for i, kind in enumerate(kinds)]


def test_renoir_batches_are_scenes_of_a_camera() -> None:
    names = [
        *renoir(),
        *renoir("S90"),
        "T3i_Aligned/Batch_002/IMG_0001Noisy.bmp",
        "T3i_Aligned/Batch_002/IMG_0002Reference.bmp",
    ]
    pairs, unplaced = list_renoir(names, ANY)
    assert unplaced == []
    assert [(p.scene, p.camera) for p in pairs] == [
        ("renoir/Mi3/Batch_001", "Mi3"),
        ("renoir/S90/Batch_001", "S90"),
        ("renoir/T3i/Batch_002", "T3i"),
    ]
    assert pairs[2] == Pair(
        id="renoir/T3i/Batch_002/IMG_0001Noisy",
        corpus="renoir",
        scene="renoir/T3i/Batch_002",
        noisy=names[4],
        clean=names[5],
        camera="T3i",
    )


def test_renoir_given_as_one_camera_s_folder_has_the_same_ids() -> None:
    names = [*renoir(), *renoir(batch="002")]
    whole, _ = list_renoir(names, ANY, "RENOIR")
    below = [name.removeprefix("Mi3_Aligned/") for name in names]
    one, unplaced = list_renoir(below, ANY, "Mi3_Aligned")
    assert unplaced == []
    assert [(p.id, p.scene, p.camera) for p in one] == [(p.id, p.scene, p.camera) for p in whole]
    assert [p.noisy for p in one] == [below[0], below[2]]


def test_renoir_masks_are_left_aside_and_several_noisy_share_a_reference() -> None:
    names = renoir(kinds=("Noisy", "Reference", "Mask", "noisy", "MASK"))
    pairs, unplaced = list_renoir(names, ANY)
    assert unplaced == []
    assert [(p.noisy, p.clean) for p in pairs] == [(names[0], names[1]), (names[3], names[1])]
    assert len({p.id for p in pairs}) == 2


@pytest.mark.parametrize("kinds", [("Noisy",), ("Reference",), ("Noisy", "Reference", "Reference"), ("Full", "Other")])
def test_renoir_batches_without_one_reference_are_reported(kinds: tuple[str, ...]) -> None:
    bad = renoir(batch="009", kinds=kinds)
    pairs, unplaced = list_renoir([*renoir(), *bad, "top.bmp"], ANY)
    assert len(pairs) == 1
    assert unplaced == sorted([*bad, "top.bmp"])


def test_nind_pairs_all_with_the_lowest_iso() -> None:
    names = [f"NIND_a b_ISO{iso}.{kind}" for iso, kind in (("6400", "png"), ("800", "jpg"), ("H2", "png"), ("H1", "tif"))]
    names += ["NIND_a b_ISO200-1.png", "NIND_a b_ISO200-2.png", "NIND_a b_ISO6400-2.png"]
    pairs, unplaced = list_nind(names, ANY)
    assert {p.clean for p in pairs} == {"NIND_a b_ISO200-1.png"}
    assert [(p.noisy, p.iso) for p in pairs] == [
        ("NIND_a b_ISO800.jpg", 800),
        ("NIND_a b_ISO6400.png", 6400),
        ("NIND_a b_ISO6400-2.png", 6400),
        ("NIND_a b_ISOH1.tif", None),
        ("NIND_a b_ISOH2.png", None),
    ]
    assert {p.scene for p in pairs} == {"nind/a b"}
    assert unplaced == ["NIND_a b_ISO200-2.png"]


def test_nind_shots_count_as_numbers_and_scenes_may_hold_anything() -> None:
    names = ["NIND_x_ISO100-10.png", "NIND_x_ISO100-9.png", "NIND_x_ISO3200-1.PNG"]
    pairs, unplaced = list_nind(names, ANY)
    assert [(p.noisy, p.clean) for p in pairs] == [(names[2], names[1])]
    assert unplaced == [names[0]]
    odd = ["NIND_MuseeL-Bobo-C500D_ISO_x_ISO200.png", "NIND_MuseeL-Bobo-C500D_ISO_x_ISOH1-2.png"]
    assert [p.scene for p in list_nind(odd, ANY)[0]] == ["nind/MuseeL-Bobo-C500D_ISO_x"]


def test_nind_photos_in_two_file_types_are_two_pairs() -> None:
    pairs, unplaced = list_nind(["NIND_x_ISO100.png", "NIND_x_ISO800.png", "NIND_x_ISO800.jpg"], ANY)
    assert len({p.id for p in pairs}) == 2
    assert unplaced == []


def test_nind_folders_do_not_mix_and_lone_photos_are_reported() -> None:
    names = ["a/NIND_x_ISO100.png", "b/NIND_x_ISO800.png", "NIND_y.png", "NIND_y_ISOauto.png"]
    assert list_nind(names, ANY) == ([], sorted(names))


def polyu(*stems: str, suffix: str = "JPG") -> list[str]:
    return [f"CroppedImages/{stem}_{kind}.{suffix}" for stem in stems for kind in ("mean", "real")]


@pytest.mark.parametrize(
    ("stem", "camera", "iso", "shutter", "scene"),
    [
        ("Canon5D2_5_160_3200_chair_11", "Canon5D2", 3200, "160", "chair"),
        ("Sony_4-5_125_3200_plant_3", "Sony", 3200, "125", "plant"),
        ("NikonD800_6-3_125_5000_plant__1", "NikonD800", 5000, "125", "plant"),
        ("Canon80D_8_8_800_GO_15", "Canon80D", 800, "8", "go"),
        ("Nikon_D800_10_100_6400_plan_and_sofa_2", "Nikon_D800", 6400, "100", "plan_and_sofa"),
    ],
)
@pytest.mark.parametrize("suffix", ["JPG", "png"])
def test_polyu_names_also_the_irregular_ones(
    stem: str, camera: str, iso: int, shutter: str, scene: str, suffix: str
) -> None:
    clean, noisy = polyu(stem, suffix=suffix)
    assert list_polyu([noisy, clean], ANY) == (
        [
            Pair(
                id=f"polyu/CroppedImages/{stem}",
                corpus="polyu",
                scene=f"polyu/{scene}",
                noisy=noisy,
                clean=clean,
                camera=camera,
                iso=iso,
                shutter=shutter,
            )
        ],
        [],
    )


def test_polyu_things_that_several_cameras_saw_are_one_scene() -> None:
    pairs, _ = list_polyu(polyu("Sony_4-5_125_1600_toy_1", "Canon600D_4-5_125_1600_Toy_11"), ANY)
    assert {p.scene for p in pairs} == {"polyu/toy"}
    assert len({p.camera for p in pairs}) == 2


@pytest.mark.parametrize("foreign", ["Sony_4_200_3200_door_9_real.JPG", "door_real.JPG", "Sony_4_200_3200_door_9.JPG"])
def test_polyu_reports_what_it_cannot_place(foreign: str) -> None:
    pairs, unplaced = list_polyu([*polyu("Sony_4_200_3200_door_1"), foreign], ANY)
    assert len(pairs) == 1
    assert unplaced == [foreign]


@pytest.mark.parametrize(
    ("adapter", "noisy", "clean"),
    [
        ("sidd", f"{FOLDER}/NOISY_SRGB_010.PNG", f"{FOLDER}/gt_SRGB_010.png"),
        ("renoir", "Mi3_Aligned/Batch_001/aNoisy.BMP", "Mi3_Aligned/Batch_001/bReference.bmp"),
        ("nind", "NIND_a_ISO800.JPG", "NIND_a_ISO100.jpg"),
        ("polyu", "Sony_4_200_3200_door_1_real.JPG", "Sony_4_200_3200_door_1_Mean.jpg"),
        ("pairs", "noisy/a.PNG", "clean/A.png"),
    ],
)
def test_names_may_differ_in_case(adapter: str, noisy: str, clean: str) -> None:
    pairs, unplaced = ADAPTERS[adapter]([noisy, clean], ANY, "")
    assert [(p.noisy, p.clean) for p in pairs] == [(noisy, clean)]
    assert unplaced == []


def test_of_several_names_that_differ_in_case_none_is_guessed() -> None:
    names = ["clean/a.PNG", "clean/A.png", "noisy/a.png"]
    assert list_templates(names, ANY) == ([], sorted(names))
    assert (
        list_sidd([f"{FOLDER}/{name}" for name in ("NOISY_SRGB_010.PNG", "GT_SRGB_010.png", "gt_SRGB_010.png")], ANY)[0]
        == []
    )


MIXED = [
    *sidd(),
    *renoir(kinds=("Noisy", "Noisy", "Reference", "Mask")),
    *(f"NIND_x_ISO{iso}.png" for iso in ("100", "100-2", "800", "H1")),
    *polyu("Sony_4-5_125_1600_toy_1", "NikonD800_6-3_125_5000_plant__1"),
    *(f"{kind}/{name}" for kind in ("noisy", "clean") for name in ("a.png", "b.PNG")),
    "stray.png",
]


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
@settings(max_examples=20, deadline=None)
@given(names=st.permutations(MIXED))
def test_order_does_not_matter_and_every_photo_is_placed_or_reported(adapter: str, names: list[str]) -> None:
    pairs, unplaced = ADAPTERS[adapter](names, ANY, "")
    assert (pairs, unplaced) == ADAPTERS[adapter](sorted(names), ANY, "")
    placed = {name for p in pairs for name in (p.noisy, p.clean)}
    assert not placed & set(unplaced)
    left_aside = {name for name in MIXED if "Mask" in name} if adapter == "renoir" else set()
    assert placed | set(unplaced) | left_aside == set(MIXED)
    assert len({p.id for p in pairs}) == len(pairs)
    assert all(p.id.startswith(f"{adapter}/") and p.scene.startswith(f"{adapter}/") for p in pairs)


def test_regular_expressions_with_named_groups() -> None:
    options = templates(
        r"regex:(?P<camera>\w+)/(?P<scene>\w+)/n(?P<name>\d)(_ISO(?P<iso>\d+))?\.\w+", r"regex:.*/(?P<scene>\w+)/c\.\w+"
    )
    names = ["X/hall/n1_ISO800.jpg", "X/hall/n2.png", "Y/hall/c.tif", "X/attic/n1.png", "X/hall/n1.jpg.bak.png"]
    pairs, unplaced = list_templates(names, options)
    assert [(p.noisy, p.clean, p.scene, p.camera, p.iso) for p in pairs] == [
        ("X/hall/n1_ISO800.jpg", "Y/hall/c.tif", "pairs/hall", "X", 800),
        ("X/hall/n2.png", "Y/hall/c.tif", "pairs/hall", "X", None),
    ]
    assert unplaced == ["X/attic/n1.png", "X/hall/n1.jpg.bak.png"]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("regex:(?P<name>", "cannot read regular expression '(?P<name>'"),
        ("regex:(?P<nmae>.+)", "unknown group 'nmae' in 'regex:(?P<nmae>.+)'; known: camera, iso, name, scene"),
        ("regex:(.+)", "tells no photos apart"),
    ],
)
def test_a_regular_expression_that_cannot_work_is_refused(expression: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        list_templates(["noisy/a.png"], templates(expression, "clean/{name}"))


def test_clean_photos_become_a_pair_for_each_noise() -> None:
    pairs, unplaced = list_clean(["b.png", "deep/a.png"], CorpusOptions(noise="camera:800,3200"))
    assert unplaced == []
    assert [(p.id, p.scene, p.iso, p.noise) for p in pairs] == [
        ("clean/b.png#camera:800", "clean/b.png", 800, "camera:800"),
        ("clean/b.png#camera:3200", "clean/b.png", 3200, "camera:3200"),
        ("clean/deep/a.png#camera:800", "clean/deep/a.png", 800, "camera:800"),
        ("clean/deep/a.png#camera:3200", "clean/deep/a.png", 3200, "camera:3200"),
    ]
    assert all(p.noisy == p.clean and p.camera == "synthetic" for p in pairs)


def test_a_label_names_a_corpus_apart(tmp_path: Path) -> None:
    for kind in ("noisy", "clean"):
        write_png(tmp_path / kind / "a.png", random_photo(8, 8))
    plain, labelled = (Corpus.parse(f"{name}={tmp_path}", STORAGE).list_pairs(ANY)[0][0] for name in ("pairs", "pairs:lab"))
    assert (plain.corpus, plain.id, plain.scene) == ("pairs", "pairs/noisy/a.png", "pairs/clean/a.png")
    assert (labelled.corpus, labelled.id, labelled.scene) == ("lab", "lab/noisy/a.png", "lab/clean/a.png")
    assert (labelled.noisy, labelled.stamp) == (plain.noisy, plain.stamp)
    write_png(tmp_path / "clean/a.png", random_photo(9, 9))
    assert Corpus.parse(f"pairs={tmp_path}", STORAGE).list_pairs(ANY)[0][0].stamp != plain.stamp
    with pytest.raises(UserError, match="cannot read corpus 'pairs:a/b=/photos'"):
        Corpus.parse("pairs:a/b=/photos", STORAGE)


@pytest.mark.parametrize("below", ["", "/Mi3_Aligned"])
def test_renoir_s_camera_is_known_from_the_folder_itself(tmp_path: Path, below: str) -> None:
    for kind in ("Noisy", "Reference"):
        write_png(tmp_path / f"Mi3_Aligned/Batch_001/IMG_1{kind}.png", random_photo(8, 8))
    pairs, _ = Corpus.parse(f"renoir={tmp_path}{below}", STORAGE).list_pairs(ANY)
    assert [(p.id, p.camera) for p in pairs] == [("renoir/Mi3/Batch_001/IMG_1Noisy", "Mi3")]


@pytest.mark.parametrize(
    ("adapter", "folder", "pairs", "scenes"),
    [("sidd", "SIDD_Small_sRGB_Only_256", 131, 7), ("renoir", "Mi3_Aligned", 20, 20), ("polyu", "PolyU", 100, 23)],
)
def test_the_real_photo_pairs_are_all_placed(shared_data: Path, adapter: str, folder: str, pairs: int, scenes: int) -> None:
    found, unplaced = Corpus.parse(f"{adapter}={shared_data / folder}", STORAGE).list_pairs(ANY)
    assert unplaced == []
    assert (len(found), len({p.id for p in found}), len({p.scene for p in found})) == (pairs, pairs, scenes)
    assert all(p.camera for p in found)
