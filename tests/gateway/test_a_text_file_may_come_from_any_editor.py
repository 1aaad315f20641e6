"""A byte order mark and CRLF change nothing; another encoding than UTF-8 is named with its line."""

import pytest

from gateway.door import keys
from gateway.settings import SettingsError, load_settings


def test_a_panel_file_with_a_byte_order_mark_is_the_same_panel(panel_file):
    """Its hash too: verdicts that were kept are still its own."""
    path = panel_file(["http://127.0.0.1:1"])
    plain = load_settings(path, environ={})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    marked = load_settings(path, environ={})
    assert marked.model_copy(update={"secret": plain.secret}) == plain


@pytest.mark.parametrize(
    ("encoding", "line"), [("latin-1", 3), ("cp1252", 3), ("utf-16", 1), ("utf-16-le", 3)]
)
def test_a_panel_file_in_another_encoding_is_one_line(encoding, line, panel_file):
    path = panel_file(["http://127.0.0.1:1"])
    path.write_bytes(f"# A panel\n\n# für die Klinik\n{path.read_text()}".encode(encoding))
    with pytest.raises(SettingsError, match=rf"panel\.toml: line {line} is not UTF-8; save the"):
        load_settings(path, environ={})


def test_a_keys_file_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "keys.json"
    keys.add(path, "clinic", None, False)
    before = keys.read(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert keys.read(path) == before
