"""Small stories: tasks that ran on pods, with seconds for times."""

from typing import Any

from hypothesis import strategies as st

from deploy.sandbox.demo.journal import Run
from deploy.sandbox.demo.scene import Scene, WorkerRow
from deploy.sandbox.demo.story import SHORT, Outcome, PodLife
from deploy.sandbox.demo.timeline import RoundMark

END = 100.0


def run(
    task: str, started_at: float, finished_at: float | None, *, pod: str = "w-0", name: str = SHORT
) -> Run:
    """A run; without an end its process was killed, or it still runs."""
    return Run(id=task, name=name, pod=pod, started_at=started_at, finished_at=finished_at)


def life(name: str = "w-0", started_at: float = 0.0, ended_at: float | None = None, **more: Any) -> PodLife:
    return PodLife(name=name, started_at=started_at, ended_at=ended_at, **more)


def lives(*pods: PodLife) -> dict[str, PodLife]:
    return {pod.name: pod for pod in pods}


def outcome(**figures: Any) -> Outcome:
    """Two tasks that finished, unless it is said otherwise."""
    return Outcome(
        **{
            "submitted": 2,
            "finished": 2,
            "killed": 0,
            "lost": 0,
            "run_twice": 0,
            "worker_seconds": 20.0,
            "least_worker_seconds": 10.0,
            **figures,
        }
    )


def verdict(from_replicas: int = 3, to_replicas: int = 2, *, allowed: bool = True, **more: Any) -> RoundMark:
    reason = "Drained" if allowed else "Busy"
    return RoundMark(
        **{
            "at": 50.0,
            "allowed": allowed,
            "from_replicas": from_replicas,
            "to_replicas": to_replicas,
            "reason": reason,
            **more,
        }
    )


def scene(*workers: WorkerRow, **more: Any) -> Scene:
    """A quiet moment with these workers."""
    return Scene(
        **{
            "elapsed_s": 1.0,
            "chapter": "idle",
            "load_factor": 0.5,
            "waiting": 0,
            "replicas": len(workers),
            "wanted": len(workers),
            "submitted": 0,
            "finished": 0,
            "killed": 0,
            "workers": workers,
            "rounds": (),
            **more,
        }
    )


@st.composite
def told(draw: st.DrawFn) -> tuple[tuple[Run, ...], dict[str, PodLife], int]:
    """Runs, pods and slots that fit together: a pod is always there, and no slot runs two tasks at once."""
    slots = draw(st.integers(1, 3))
    pods = [life("w-0")]
    for number in range(1, draw(st.integers(1, 4))):
        started_at, ended_at = sorted(draw(st.tuples(_moments(), _moments())))
        pods.append(life(f"w-{number}", started_at, ended_at))
    runs = [one for pod in pods for slot in range(slots) for one in draw(_runs_in(pod, slot))]
    return tuple(runs), lives(*pods), slots


@st.composite
def _runs_in(draw: st.DrawFn, pod: PodLife, slot: int) -> list[Run]:
    """What one slot of a pod ran, one after the other; its last task may have been killed with the pod."""
    ended_at = END if pod.ended_at is None else pod.ended_at
    moments = sorted(draw(st.lists(st.floats(pod.started_at, ended_at), max_size=6)))
    pairs = list(zip(moments[::2], moments[1::2], strict=False))
    runs = [run(f"{pod.name}/{slot}/{i}", *pair, pod=pod.name) for i, pair in enumerate(pairs)]
    if len(moments) % 2:
        runs.append(run(f"{pod.name}/{slot}/last", moments[-1], None, pod=pod.name))
    return runs


def _moments() -> st.SearchStrategy[float]:
    return st.floats(0, END)
