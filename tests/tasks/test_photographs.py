import pytest

from vsquant.errors import DataError
from vsquant.tasks.photographs import class_table, find_photographs


def _touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def _csv(folder, *lines):
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


def _find(data, subfolders=()):
    return find_photographs(data, task="imagenet", subfolders=subfolders)


def _listed(photographs):
    return sorted((photograph.path.name, photograph.label) for photograph in photographs)


def test_csv_with_a_split(tmp_path):
    _csv(tmp_path, "file,label,split,author", "a.jpg,3,calibration,A", "b.jpg,7,evaluation,B", "c.jpg,3,evaluation,C")
    found = _find(tmp_path)
    assert _listed(found.calibration) == [("a.jpg", "3")]
    assert _listed(found.evaluation) == [("b.jpg", "7"), ("c.jpg", "3")]
    assert found.count == 3
    assert not found.by_folder


def test_csv_by_its_own_path_with_images_beside_it_or_in_images(tmp_path):
    _csv(tmp_path, "file,label", *(f"{i}.jpg,{i}" for i in range(10)))
    assert {photograph.path.parent for photograph in _find(tmp_path / "labels.csv").evaluation} == {tmp_path}
    (tmp_path / "images").mkdir()
    assert {photograph.path.parent for photograph in _find(tmp_path).evaluation} == {tmp_path / "images"}


def test_without_a_split_a_fifth_calibrates_and_the_order_is_fixed(tmp_path):
    _csv(tmp_path, "file,label", *(f"{i}.jpg,{i % 3}" for i in range(50)))
    first, second = _find(tmp_path), _find(tmp_path)
    assert (len(first.calibration), len(first.evaluation)) == (10, 40)
    assert first == second
    names = [photograph.path.name for photograph in (*first.calibration, *first.evaluation)]
    assert sorted(names) == sorted(f"{i}.jpg" for i in range(50))
    assert names != sorted(names)


@pytest.mark.parametrize(("calibration", "evaluation"), [("train", "val"), ("calibration", "evaluation")])
def test_class_folders_within_split_folders(tmp_path, calibration, evaluation):
    _touch(tmp_path, f"{calibration}/cat/1.JPEG", f"{evaluation}/cat/2.JPEG", f"{evaluation}/dog/3.png", "LICENSE")
    _touch(tmp_path, f"{evaluation}/dog/notes.txt")
    found = _find(tmp_path)
    assert found.by_folder
    assert _listed(found.calibration) == [("1.JPEG", "cat")]
    assert _listed(found.evaluation) == [("2.JPEG", "cat"), ("3.png", "dog")]


def test_class_folders_alone_and_a_lone_validation_folder_are_divided(tmp_path):
    _touch(tmp_path, *(f"bare/{label}/{i}.jpg" for label in "ab" for i in range(5)))
    _touch(tmp_path, *(f"lone/val/{label}/{i}.jpg" for label in "ab" for i in range(5)))
    for name in ("bare", "lone"):
        found = _find(tmp_path / name)
        assert (len(found.calibration), len(found.evaluation)) == (2, 8)


def test_a_parent_folder_leads_to_its_subfolder(tmp_path):
    _touch(tmp_path, "pictures/a/1.jpg", "pictures/b/2.jpg", "words/text.json")
    assert _find(tmp_path, subfolders=("nothing", "pictures")).origin == tmp_path / "pictures"


def test_large_calibration_sets_are_cut(tmp_path):
    _csv(tmp_path, "file,label,split", "e.jpg,0,val", *(f"{i}.jpg,0,train" for i in range(1100)))
    assert len(_find(tmp_path).calibration) == 1024


def test_a_folder_without_images_says_what_it_must_hold(tmp_path):
    with pytest.raises(DataError, match=r"must hold labels.csv \(columns file, label .*one folder of images per class"):
        _find(tmp_path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,class", "a.jpg,1"], "labels.csv must have the columns file and label, not file, class"),
        ([""], "must have the columns file and label, not none"),
        (["file,label", "a.jpg,"], "a file and a label in every line, but line 2 does not"),
        (["file,label", "a.jpg,1", "b.jpg"], "but line 3 does not"),
        (["file,label,split", "a.jpg,1,tests"], "split in line 2 of .* must be calibration or evaluation, not 'tests'"),
        (["file,label,split", "a.jpg,1,val", "b.jpg,1,"], "must give a split for every image or for none"),
        (["file,label"], "must list at least one image to evaluate on, not none"),
    ],
)
def test_malformed_csv_says_where(tmp_path, lines, message):
    _csv(tmp_path, *lines)
    with pytest.raises(DataError, match=message):
        _find(tmp_path)


def test_a_csv_of_another_encoding_is_refused(tmp_path):
    (tmp_path / "labels.csv").write_bytes("file,label\ncafé.jpg,1\n".encode("latin-1"))
    with pytest.raises(DataError, match="must be a CSV file in UTF-8"):
        _find(tmp_path)


@pytest.mark.parametrize(
    ("labels", "by_folder", "expected"),
    [
        ({"2", "10"}, False, {"2": 2, "10": 10}),
        ({"0", "2", "10"}, True, {"0": 0, "2": 2, "10": 10}),
        ({"cat", "dog"}, True, {"cat": 5, "dog": 3}),
        ({f"n{i:02}" for i in range(11)}, True, {f"n{i:02}": i for i in range(11)}),
    ],
)
def test_labels_are_indices_names_or_sorted_folders(labels, by_folder, expected):
    assert class_table(labels, classes=11, names={"cat": 5, "dog": 3}, by_folder=by_folder) == expected


@pytest.mark.parametrize(
    ("labels", "by_folder", "wrong"),
    [
        ({"3", "11"}, False, "11"),
        ({"-1"}, False, "-1"),
        ({"cat", "cow"}, True, "cow"),
        ({f"n{i:02}" for i in range(11)}, False, "n00"),
    ],
)
def test_other_labels_are_refused_by_name(labels, by_folder, wrong):
    with pytest.raises(DataError, match=rf"labels must be class indices from 0 to 10, .*; not '{wrong}' among"):
        class_table(labels, classes=11, names={"cat": 5}, by_folder=by_folder)
