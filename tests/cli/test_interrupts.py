"""What an interrupt of ``vsquant quantize --resume`` says of finished layers: neither more nor less than is so."""

from __future__ import annotations

from pathlib import Path

from vsquant.cli.quantize import _kept


def test_what_is_kept_is_counted(tmp_path: Path) -> None:
    assert _kept(None)() == "nothing was written"
    folder = tmp_path / "kept"
    said = _kept(folder)
    assert said() == "no layer was finished yet, so none is kept"
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "a.safetensors").write_text("")
    assert said() == "layers and blocks finished and kept: 1; the same command goes on there"
    assert _kept(folder)() == "no further layer was finished"
