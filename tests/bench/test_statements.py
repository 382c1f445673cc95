"""What the benchmark of the database says of queries and plans is what they are."""

import sqlalchemy as sa

from tests.bench.database import WITHOUT_INDEX, Measured, targets_of
from tests.bench.statements import Sent, sent_statements, sequential_scans

SLOTS = "SELECT dag_id FROM task_instance WHERE state IN ('running', 'queued')"


def sent(sql: str = SLOTS, *, seconds: float = 0.001) -> Sent:
    return Sent(sql=sql, parameters={}, seconds=seconds)


def measured(*seconds: float, read_whole: frozenset[str] = frozenset()) -> Measured:
    return Measured(name="task_instance by state", seconds=seconds, plan="", read_whole=read_whole)


def test_a_plan_says_which_tables_it_reads_whole() -> None:
    """In parallel, under an alias, or of a schema; a bitmap scan reads no table whole."""
    plan = """
        Hash Join  (cost=1.00..2.00 rows=3 width=4)
          ->  Parallel Seq Scan on public.task_instance ti  (cost=0.00..9.00 rows=1 width=9)
          ->  Seq Scan on dag_tag  (cost=0.00..9.00 rows=1 width=9)
          ->  Bitmap Heap Scan on serialized_dag  (cost=0.00..9.00 rows=1 width=9)
    """
    assert sequential_scans(plan) == {"task_instance", "dag_tag"}


def test_a_query_is_the_same_for_any_number_of_keys() -> None:
    shapes = {
        sent(f"SELECT 1\nFROM dag_tag WHERE dag_id IN ({keys}) AND name LIKE %(pattern)s").shape
        for keys in ("%(k_1)s", "%(k_1)s, %(k_2)s", "%(k_1)s, %(k_2)s, %(k_3)s")
    }
    assert shapes == {"SELECT 1 FROM dag_tag WHERE dag_id IN (…) AND name LIKE %(pattern)s"}


def test_a_query_is_named_by_its_table_and_what_it_looks_for() -> None:
    assert sent().name == "task_instance by state"
    documents = sent("SELECT data_compressed FROM serialized_dag WHERE dag_id IN (%(k_1)s)")
    assert documents.name == "serialized_dag by dag_id, documents"


def test_the_catalogue_is_no_table_of_airflow() -> None:
    """Nor is a function, whose name may follow FROM."""
    assert sent("SELECT 1 FROM unnest(ARRAY['x']) AS n JOIN pg_attribute ON true").tables == ()
    assert sent("SELECT EXTRACT(EPOCH FROM now()) FROM dag_tag").tables == ("dag_tag",)


def test_a_query_fails_by_its_median_and_by_reading_a_big_table_whole() -> None:
    quick, slow = measured(0.001, 0.002, 0.5), measured(0.021)
    whole = measured(0.001, read_whole=frozenset({"task_instance"}))
    assert [target.is_met for target in targets_of(3, [quick, quick])] == [True, True]
    assert [target.is_met for target in targets_of(3, [quick, slow])] == [False, True]
    assert [target.is_met for target in targets_of(3, [quick, whole])] == [True, False]


def test_a_query_for_which_airflow_has_no_index_must_still_be_fast() -> None:
    (name,) = WITHOUT_INDEX
    whole = frozenset({"serialized_dag"})
    fast, slow = (Measured(name=name, seconds=(each,), plan="", read_whole=whole) for each in (0.001, 0.021))
    assert [target.is_met for target in targets_of(3, [fast])] == [True, True]
    assert [target.is_met for target in targets_of(3, [slow])] == [False, True]


def test_what_is_measured_is_what_an_engine_sends() -> None:
    engine = sa.create_engine("sqlite://")
    with sent_statements() as statements, engine.connect() as connection:
        connection.execute(sa.text("SELECT :one"), {"one": 1})
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 2"))
    engine.dispose()
    assert [(one.sql, tuple(one.parameters)) for one in statements] == [("SELECT ?", (1,))]
