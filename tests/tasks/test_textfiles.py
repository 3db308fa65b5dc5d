"""Finding and fingerprinting files, and the fixed order of samples."""

import pytest

from vsquant.errors import DataError
from vsquant.tasks.textfiles import fixed_order, read_text, sha256_of_files


def test_the_order_is_fixed_for_ever():
    assert fixed_order(8) == [4, 7, 0, 6, 2, 1, 3, 5]
    assert sorted(fixed_order(1000)) == list(range(1000))
    assert fixed_order(0) == []


def test_the_hash_follows_names_contents_and_order(tmp_path):
    one, two, three = tmp_path / "one", tmp_path / "two", tmp_path / "three"
    one.write_bytes(b"a" * 3_000_000)
    two.write_bytes(b"b")
    three.write_bytes(b"b")
    hashes = [sha256_of_files(files) for files in ([one, two], [two, one], [one, three], [one], [])]
    assert len(set(hashes)) == 5
    assert sha256_of_files([one, two]) == hashes[0]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt must be a readable file: No such file"):
        read_text(tmp_path / "gone.txt")
