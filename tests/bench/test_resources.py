"""The table says what was measured."""

from tests.bench.resources import Usage, table


def test_the_table_has_a_line_for_each_service_and_fleet() -> None:
    usage = Usage(cpu=0.0421, memory_mib=86.4, peak_mib=90.0)
    lines = table({3: {"drain_hook": usage}, 200: {"drain_hook": usage}})
    assert [line.split()[-3:] for line in lines[1:]] == [["42", "86", "90"]] * 2
    assert [line.split(",")[1].split()[0] for line in lines[1:]] == ["3", "200"]
