"""What is printed at the end."""

from deploy.sandbox.demo.summary import closing_sentence, summary_lines
from tests.sandbox.demo.stories import outcome, verdict


def figures_of(lines: list[str]) -> dict[str, str]:
    """Label and figure of each line; two blanks part them at the least, or one after the longest label."""
    return {line[:20].strip(): line[20:].strip() for line in lines}


def test_every_figure_has_a_line() -> None:
    figures = outcome(submitted=9, finished=5, killed=3, lost=4, run_twice=1)
    assert figures_of(summary_lines(figures, (), with_hook=False)) == {
        "tasks submitted": "9",
        "tasks finished": "5",
        "tasks killed": "3",
        "tasks lost": "4",
        "tasks run twice": "1",
        "worker-seconds": "20",
        "least possible": "10",
    }


def test_the_hook_is_summed_up_by_its_verdicts() -> None:
    rounds = (verdict(seconds=0.1), verdict(allowed=False, seconds=0.4), verdict(seconds=0.2))
    figures = figures_of(summary_lines(outcome(), rounds, with_hook=True))
    assert (figures["rounds allowed"], figures["rounds refused"]) == ("2", "1")
    assert figures["seconds per verdict"] == "0.200 (median), 0.400 (longest)"


def test_a_hook_that_was_never_asked_took_no_time() -> None:
    figures = figures_of(summary_lines(outcome(), (), with_hook=True))
    assert figures["seconds per verdict"] == "0.000 (median), 0.000 (longest)"


def test_the_end_says_that_nothing_was_lost() -> None:
    assert closing_sentence(outcome(), with_hook=True) == "No task was killed or lost."


def test_the_end_without_the_hook_says_what_to_compare_it_with() -> None:
    sentence = closing_sentence(outcome(killed=3, lost=4), with_hook=False)
    assert "3 tasks were killed and 4 never finished." in sentence
    assert "make demo" in sentence


def test_a_task_that_was_lost_and_not_killed_is_not_passed_over() -> None:
    assert "1 never finished" in closing_sentence(outcome(lost=1), with_hook=True)


def test_one_task_is_spoken_of_as_one() -> None:
    sentence = closing_sentence(outcome(killed=1, lost=1), with_hook=True)
    assert sentence == "1 task was killed and 1 never finished."
