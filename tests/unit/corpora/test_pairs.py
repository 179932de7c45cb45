"""Folders of pairs: templates and regular expressions pair file names."""

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.corpus_names import ANY, FOLDER

from degrain.corpora.config import CorpusOptions
from degrain.corpora.listing import FolderNames
from degrain.corpora.pairs import describe_unpaired, list_templates
from degrain.corpora.record import PairRecord
from degrain.corpora.sidd import list_sidd
from degrain.corpora.templates import compile_template
from degrain.errors import UserError


def templates(noisy: str, clean: str) -> CorpusOptions:
    return CorpusOptions(noisy_name=noisy, clean_name=clean)


def test_template_fields_become_fields_of_the_pair() -> None:
    options = templates("{camera}/{scene}_{name}_ISO{iso}.jpg", "{camera}/{scene}_clean.png")
    pairs, unplaced = list_templates(
        FolderNames(["X100/beach_b_ISO3200.jpg", "X100/beach_clean.png"], options)
    )
    assert unplaced == []
    assert pairs == [
        PairRecord(
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
    names = [
        "noisy/a.png",
        "noisy/b.png",
        "clean/a.png",
        "clean/b.png",
        "clean/c.png",
        "noisy/deep/a.png",
    ]
    pairs, unplaced = list_templates(FolderNames(names, ANY))
    assert [(p.noisy, p.clean) for p in pairs] == [
        (f"noisy/{x}.png", f"clean/{x}.png") for x in "ab"
    ]
    assert unplaced == ["clean/c.png", "noisy/deep/a.png"]


def test_several_noisy_photos_share_a_clean_one_and_its_scene() -> None:
    options = templates("noisy/{name}-{iso}.png", "clean/{name}.png")
    names = ["noisy/a-100.png", "noisy/a-200.png", "noisy/b-100.png", "clean/a.png", "clean/b.png"]
    pairs, unplaced = list_templates(FolderNames(names, options))
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
    pairs, unplaced = list_templates(FolderNames(names, options))
    assert [p.noisy for p in pairs] == ["a/a_noisy.png"]
    assert unplaced == ["a/b.png", "a/b_noisy.png"]


def test_a_photo_is_not_its_own_clean_one() -> None:
    assert list_templates(FolderNames(["a.png"], templates("{name}.png", "{name}.png"))) == (
        [],
        ["a.png"],
    )


@pytest.mark.parametrize(
    "literal", ["(1)", "[x]", "a.b", "a+b*", "100%", "%20", "^$", "a\\d", "ü–日本", "a b", "{{}}"]
)
def test_template_text_is_literal(literal: str) -> None:
    options = templates(f"{literal}/{{name}}.png", f"clean {literal}/{{name}}.png")
    text = literal.replace("{{}}", "{}")
    pairs, unplaced = list_templates(FolderNames([f"{text}/1.png", f"clean {text}/1.png"], options))
    assert [(p.noisy, p.clean) for p in pairs] == [(f"{text}/1.png", f"clean {text}/1.png")]
    assert unplaced == []


def test_a_dot_in_a_template_is_a_dot() -> None:
    assert compile_template("noisy/{name}.png").fullmatch("noisy/a_png") is None


@settings(max_examples=60, deadline=None)
@given(
    name=st.text(
        st.characters(exclude_characters="/\n", exclude_categories=["Cs"]), min_size=1, max_size=12
    )
)
def test_any_file_name_is_taken_literally(name: str) -> None:
    names = [f"noisy/{name}", f"clean/{name}"]
    pairs, unplaced = list_templates(FolderNames(names, ANY))
    assert [(p.noisy, p.clean) for p in pairs] == [tuple(names)]
    assert unplaced == []


@pytest.mark.parametrize(
    ("noisy", "clean", "message"),
    [
        (
            "noisy/{nmae}.png",
            "clean/{name}.png",
            "unknown field '{nmae}' in 'noisy/{nmae}.png'; known: camera, iso",
        ),
        ("noisy/{}.png", "clean/{name}.png", "unknown field '{}'"),
        ("noisy/{name}.png", "clean/{name}_{iso}.png", "has a field {iso} that the noisy one"),
        ("noisy/ISO{iso}.png", "clean/{name}.png", "'noisy/ISO{iso}.png' does not identify photos"),
        (
            "noisy/{name}.png",
            "clean/all.png",
            "'clean/all.png' does not identify photos; use {scene} or {name} in it",
        ),
        ("noisy/{name.png", "clean/{name}.png", "cannot read name template 'noisy/{name.png'"),
        ("noisy/{name}}.png", "clean/{name}.png", "cannot read name template"),
    ],
)
def test_an_invalid_template_is_refused(noisy: str, clean: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        list_templates(FolderNames(["noisy/a.png", "clean/a.png"], templates(noisy, clean)))


def test_a_template_with_a_number_format_is_refused() -> None:
    with pytest.raises(UserError, match=re.escape("clean/{name}_{iso:04d}.png")):
        list_templates(
            FolderNames(
                ["noisy/a_100.png"],
                templates("noisy/{name}_{iso}.png", "clean/{name}_{iso:04d}.png"),
            )
        )


@settings(max_examples=30, deadline=None)
@given(
    names=st.permutations(
        [f"{kind}/{x}.png" for kind in ("noisy", "clean") for x in "abc"] + ["z.png", "clean/d.png"]
    )
)
def test_the_order_of_names_does_not_matter(names: list[str]) -> None:
    assert list_templates(FolderNames(names, ANY)) == list_templates(
        FolderNames(sorted(names), ANY)
    )


def test_of_several_names_that_differ_in_case_none_is_guessed() -> None:
    names = ["clean/a.PNG", "clean/A.png", "noisy/a.png"]
    assert list_templates(FolderNames(names, ANY)) == ([], sorted(names))
    assert (
        list_sidd(
            FolderNames(
                [
                    f"{FOLDER}/{name}"
                    for name in ("NOISY_SRGB_010.PNG", "GT_SRGB_010.png", "gt_SRGB_010.png")
                ],
                ANY,
            ),
        )[0]
        == []
    )


def test_regular_expressions_with_named_groups() -> None:
    options = templates(
        r"regex:(?P<camera>\w+)/(?P<scene>\w+)/n(?P<name>\d)(_ISO(?P<iso>\d+))?\.\w+",
        r"regex:.*/(?P<scene>\w+)/c\.\w+",
    )
    names = [
        "X/hall/n1_ISO800.jpg",
        "X/hall/n2.png",
        "Y/hall/c.tif",
        "X/attic/n1.png",
        "X/hall/n1.jpg.bak.png",
    ]
    pairs, unplaced = list_templates(FolderNames(names, options))
    assert [(p.noisy, p.clean, p.scene, p.camera, p.iso) for p in pairs] == [
        ("X/hall/n1_ISO800.jpg", "Y/hall/c.tif", "pairs/hall", "X", 800),
        ("X/hall/n2.png", "Y/hall/c.tif", "pairs/hall", "X", None),
    ]
    assert unplaced == ["X/attic/n1.png", "X/hall/n1.jpg.bak.png"]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("regex:(?P<name>", "cannot read regular expression '(?P<name>'"),
        (
            "regex:(?P<nmae>.+)",
            "unknown group 'nmae' in 'regex:(?P<nmae>.+)'; known: camera, iso, name, scene",
        ),
        ("regex:(.+)", "does not identify photos; use (?P<scene>...) or (?P<name>...) in it"),
    ],
)
def test_an_invalid_regular_expression_is_refused(expression: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        list_templates(FolderNames(["noisy/a.png"], templates(expression, "clean/{name}")))


def test_a_scene_is_the_shortest_part_of_a_name_that_fits() -> None:
    names = [f"{kind}/old_kitchen_1.png" for kind in ("noisy", "clean")]
    options = templates("noisy/{scene}_{name}.png", "clean/{scene}_{name}.png")
    assert [pair.scene for pair in list_templates(FolderNames(names, options))[0]] == ["pairs/old"]
    longest = r"regex:{}/(?P<scene>.+)_(?P<name>[^_]+)\.png"
    options = templates(longest.format("noisy"), longest.format("clean"))
    assert [pair.scene for pair in list_templates(FolderNames(names, options))[0]] == [
        "pairs/old_kitchen"
    ]


@pytest.mark.parametrize(
    ("names", "described"),
    [
        (
            ["clean/a_b.png", "clean/z.png", "noisy/a_b_1.png", "x.png"],
            {
                "noisy/a_b_1.png": "noisy, scene=a, name=b_1; no clean photo has these",
                "clean/a_b.png": "clean, scene=a, name=b",
            },
        ),
        (
            ["clean/a_b.png", "clean/A_b.png", "noisy/a_B.png"],
            {
                "noisy/a_B.png": "noisy, scene=a, name=B; several clean photos have these: "
                "clean/a_b.png, clean/A_b.png",
                "clean/a_b.png": "clean, scene=a, name=b",
            },
        ),
        (["x.png", "y.png"], {"x.png": "neither template matches"}),
        ([], {}),
    ],
)
def test_names_that_belong_to_no_pair_are_explained(
    names: list[str], described: dict[str, str]
) -> None:
    options = templates("noisy/{scene}_{name}.png", "clean/{scene}_{name}.png")
    assert list_templates(FolderNames(names, options))[0] == []
    assert describe_unpaired(names, names, options) == described


def test_names_pair_however_their_accents_are_encoded() -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    names = [f"noisy/{composed}_1.png", f"clean/{decomposed}_1.png"]
    names += [f"noisy/{decomposed}_2.png", f"clean/{decomposed}_2.png"]
    options = CorpusOptions(
        noisy_name="noisy/{scene}_{name}.png", clean_name="clean/{scene}_{name}.png"
    )
    pairs, unplaced = list_templates(FolderNames(names, options))
    assert unplaced == []
    assert {(pair.noisy, pair.clean) for pair in pairs} == {tuple(names[:2]), tuple(names[2:])}
    assert {pair.scene for pair in pairs} == {f"pairs/{composed}"}
