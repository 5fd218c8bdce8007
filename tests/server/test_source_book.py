"""Sources by name: those of the settings, those that were added, and what is there after a restart."""

import json
import logging
import stat

import pytest

from perception import UsageError
from perception.errors import SinkError
from perception.server.problems import Conflict, Forbidden, NotFound
from perception.server.settings import AddedSource, make_settings
from perception.server.streams import source_book
from perception.server.streams.source_book import SourceBook


def settings_of(**sources):
    return make_settings({"sources": sources, "allow": ["rtsp://cam.test/*"]})


def added(uri="rtsp://cam.test/a", **values):
    return AddedSource(uri=uri, **values)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "sources.json"


def test_what_was_added_is_there_again(path):
    book = SourceBook(settings_of(yard="yard.mp4"), path)
    assert [*book.entries] == ["yard"] and not path.exists()
    book.put("gate", added(fps=5, priority=2, keep=True))
    book.put("Hof 2", added("rtsp://cam.test/b"))
    book.put("gate", added(fps=4))
    book.remove("Hof 2")
    again = SourceBook(settings_of(yard="yard.mp4"), path)
    assert dict(again.entries) == dict(book.entries)
    assert again.get("gate").added and again.get("gate").source.fps == 4 and not again.get("gate").source.keep
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["sources.json"]


def test_pausing_is_kept_also_of_what_the_settings_have(path):
    book = SourceBook(settings_of(yard="yard.mp4"), path)
    book.put("gate", added())
    for name in ("yard", "gate"):
        book.pause(name, True)
        assert book.get(name).source.paused and book.settings.sources[name].paused
    again = SourceBook(settings_of(yard="yard.mp4"), path)
    assert again.get("yard").source.paused and again.get("gate").source.paused
    again.pause("yard", False)
    assert not SourceBook(settings_of(yard="yard.mp4"), path).get("yard").source.paused


def test_the_settings_say_the_last_word_when_they_say_something_new(path):
    SourceBook(settings_of(yard="yard.mp4"), path).pause("yard", True)
    book = SourceBook(settings_of(yard={"uri": "yard.mp4", "paused": True}), path)
    assert book.get("yard").source.paused
    book.reload(settings_of(yard="yard.mp4"))
    assert not book.get("yard").source.paused
    other = SourceBook(settings_of(yard={"uri": "yard.mp4", "paused": True}), None)
    other.pause("yard", False)
    other.reload(settings_of(yard="yard.mp4"))
    assert not other.get("yard").source.paused
    other.reload(settings_of(yard={"uri": "yard.mp4", "paused": True}))
    assert other.get("yard").source.paused


def test_the_settings_go_before_what_was_added(path, caplog):
    book = SourceBook(settings_of(), path)
    book.put("gate", added())
    with caplog.at_level(logging.WARNING, "perception"):
        again = SourceBook(settings_of(gate="gate.mp4"), path)
    assert "gate is left out: the configuration has one of that name" in caplog.text
    assert again.get("gate").source.uri == "gate.mp4" and not again.get("gate").added
    with pytest.raises(Forbidden, match="configuration file"):
        again.put("gate", added())
    with pytest.raises(Forbidden, match="configuration file"):
        again.remove("gate")
    again.reload(settings_of())
    assert again.get("gate").added  # it was not lost


def test_names(path):
    book = SourceBook(settings_of(), path)
    for name in ("", "0", "17", "a/b", "../x", ".x", "-", "a:b", "x" * 65, "a\nb", "a?"):
        with pytest.raises(UsageError, match="a name has"):
            book.put(name, added())
    for name in ("a", "cam-1", "Haustür", "2nd floor", "x" * 64, "_"):
        book.put(name, added())
    with pytest.raises(NotFound):
        book.remove("nobody")
    with pytest.raises(NotFound):
        book.pause("nobody", True)


def test_their_number_is_limited(path, monkeypatch):
    monkeypatch.setattr(source_book, "MOST_ADDED", 2)
    book = SourceBook(settings_of(), path)
    book.put("a", added())
    book.put("b", added())
    with pytest.raises(Conflict, match="2 sources have been added"):
        book.put("c", added())
    book.put("b", added(fps=1))  # is one that is there


def test_what_cannot_be_saved_does_not_happen(tmp_path):
    (tmp_path / "data").write_text("a file where the folder should be")
    book = SourceBook(settings_of(yard="yard.mp4"), tmp_path / "data" / "sources.json")
    for change in (lambda: book.put("a", added()), lambda: book.pause("yard", True)):
        with pytest.raises(SinkError, match="cannot be saved"):
            change()
    assert [*book.entries] == ["yard"] and not book.get("yard").source.paused


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"sources": ' * 5000, "\x00"])
def test_a_file_that_is_broken_is_set_aside(path, text, caplog):
    path.parent.mkdir()
    path.write_text(text)
    with caplog.at_level(logging.WARNING, "perception"):
        book = SourceBook(settings_of(yard="yard.mp4"), path)
    assert [*book.entries] == ["yard"] and "set aside" in caplog.text
    book.put("gate", added())
    assert path.with_name("sources.json.unreadable").read_text() == text


def test_one_entry_that_is_broken_takes_no_other_with_it(path, caplog):
    path.parent.mkdir()
    good = {"uri": "rtsp://cam.test/a"}
    sources = {
        "good": good, "fast": good | {"fps": -1}, "ruled": good | {"rules": "/etc/passwd"}, "a/b": good, "x": 3,
        "odd": good | {"secret-key": 1},
    }  # fmt: skip
    path.write_text(json.dumps({"sources": sources, "paused": {"yard": {"paused": True}, "x": 5}}))
    with caplog.at_level(logging.WARNING, "perception"):
        book = SourceBook(settings_of(yard="yard.mp4"), path)
    assert [*book.entries] == ["yard", "good"] and book.get("yard").source.paused
    assert "the added source fast is left out: fps" in caplog.text


def test_other_settings_are_taken_whole_or_not_at_all(tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("zones:\n  - {name: all, points: [[0, 0], [1, 0], [1, 1], [0, 1]]}\n")
    settings = settings_of(yard={"uri": "yard.mp4", "rules": str(rules)}, road="road.mp4")
    book = SourceBook(settings)
    assert [rule.name for rule in book.get("yard").rules] == ["all"]
    before = book.entries
    rules.write_text(rules.read_text().replace("all", "half"))
    book.reload(settings)
    assert [rule.name for rule in book.get("yard").rules] == ["half"]
    assert book.get("road") == before["road"] and book.get("yard").opens_like(before["yard"])
    rules.write_text("zones: 5\n")
    kept = book.entries
    with pytest.raises(UsageError):
        book.reload(settings)
    assert book.entries is kept
