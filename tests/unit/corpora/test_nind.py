"""NIND: file names become pairs."""

from unit.corpus_names import ANY

from degrain.corpora.listing import FolderNames
from degrain.corpora.nind import list_nind


def test_nind_pairs_all_with_the_lowest_iso() -> None:
    names = [
        f"NIND_a b_ISO{iso}.{kind}"
        for iso, kind in (("6400", "png"), ("800", "jpg"), ("H2", "png"), ("H1", "tif"))
    ]
    names += ["NIND_a b_ISO200-1.png", "NIND_a b_ISO200-2.png", "NIND_a b_ISO6400-2.png"]
    pairs, unplaced = list_nind(FolderNames(names, ANY))
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
    pairs, unplaced = list_nind(FolderNames(names, ANY))
    assert [(p.noisy, p.clean) for p in pairs] == [(names[2], names[1])]
    assert unplaced == [names[0]]
    odd = ["NIND_MuseeL-Bobo-C500D_ISO_x_ISO200.png", "NIND_MuseeL-Bobo-C500D_ISO_x_ISOH1-2.png"]
    assert [p.scene for p in list_nind(FolderNames(odd, ANY))[0]] == [
        "nind/MuseeL-Bobo-C500D_ISO_x"
    ]


def test_nind_photos_in_two_file_types_are_two_pairs() -> None:
    pairs, unplaced = list_nind(
        FolderNames(["NIND_x_ISO100.png", "NIND_x_ISO800.png", "NIND_x_ISO800.jpg"], ANY)
    )
    assert len({p.id for p in pairs}) == 2
    assert unplaced == []


def test_nind_folders_do_not_mix_and_lone_photos_are_reported() -> None:
    names = ["a/NIND_x_ISO100.png", "b/NIND_x_ISO800.png", "NIND_y.png", "NIND_y_ISOauto.png"]
    assert list_nind(FolderNames(names, ANY)) == ([], sorted(names))
