"""Log lines: one a record, with fields, in either format."""

import io
import json
import logging

from shared.logs import LogFormat, configure_logging

log = logging.getLogger("test.logs")


def lines(log_format: LogFormat, *, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    configure_logging(log_format=log_format, level=level, stream=stream)
    return stream


def test_json_is_one_object_a_line_with_the_fields() -> None:
    stream = lines("json")
    log.info("Two of %d\nworkers.", 3, extra={"victims": ["a", "b"], "seconds": 0.5})
    (line,) = stream.getvalue().splitlines()
    document = json.loads(line)
    assert document.pop("time").endswith("Z")
    assert document == {
        "level": "INFO",
        "logger": "test.logs",
        "message": "Two of 3\nworkers.",
        "victims": ["a", "b"],
        "seconds": 0.5,
    }


def test_json_keeps_tracebacks_and_odd_values() -> None:
    stream = lines("json")
    try:
        raise ValueError("because")
    except ValueError:
        log.exception("It failed.", extra={"what": object})
    document = json.loads(stream.getvalue())
    assert "ValueError: because" in document["exception"]
    assert document["what"] == str(object)


def test_a_field_cannot_pose_as_the_message() -> None:
    stream = lines("json")
    log.info("True.", extra={"level": "forged"})
    assert json.loads(stream.getvalue())["level"] == "INFO"


def test_text_is_a_sentence_with_fields_behind_it() -> None:
    stream = lines("text")
    log.warning("It is so.", extra={"pool": "default", "queues": ["a", "b"], "why": "two words"})
    assert stream.getvalue().endswith(
        ' WARNING test.logs: It is so. pool=default queues="[\\"a\\", \\"b\\"]" why="two words"\n'
    )


def test_less_than_the_level_is_not_logged() -> None:
    stream = lines("text", level="warning")
    log.info("Not this.")
    assert stream.getvalue() == ""


def test_libraries_do_not_chatter() -> None:
    """kombu's debug lines hold what passes through them."""
    stream = lines("text", level="debug")
    logging.getLogger("kombu.connection").debug("payload")
    log.debug("Ours.")
    assert "payload" not in stream.getvalue()
    assert "Ours." in stream.getvalue()


def test_text_passes_no_control_characters_of_fields_on() -> None:
    """Whoever names himself with an escape sequence must not colour somebody's terminal."""
    stream = lines("text")
    log.info("Asked.", extra={"user": "a\x1b[31m\x9b", "plain": "ä"})
    assert stream.getvalue().endswith(': Asked. user="a\\u001b[31m\\u009b" plain=ä\n')
