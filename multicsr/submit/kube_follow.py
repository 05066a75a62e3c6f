"""Follow a RayJob: its states by a watch that may break, the log of the pod that submits it beside that.

Only the RayJob decides when it is over. The log ends with the pod; after a retry there is another pod.
"""

import threading
import time
from collections.abc import Callable, Iterator

from multicsr.errors import RunError
from multicsr.submit.jobs import Say, Seen
from multicsr.submit.kube_api import KubeApi
from multicsr.submit.kube_objects import Pod, RayJob
from multicsr.submit.retry import Fault, pause_s

_LOOK_S = 2.0
_REST_OF_LOG_S = 10.0


def follow(api: KubeApi, name: str, say: Say, seen: Callable[[RayJob], Seen]) -> Seen:
    """Tell what happens until the job is over."""
    log = _LogThread(api, name, say)
    log.start()
    told, rest_s = "", 0.0
    try:
        for now in map(seen, states(api, name)):
            if now.detail != told:
                say(f"[{now.phase}] {now.detail}")
                told = now.detail
            if now.phase.over:
                rest_s = _REST_OF_LOG_S
                return now
        raise AssertionError("states do not end")
    finally:
        log.finish(rest_s)


def states(api: KubeApi, name: str) -> Iterator[RayJob]:
    """The job now, and after every change, without end.

    A watch that ends or breaks is begun anew from a fresh reading, so nothing that lasts is missed.

    Raises:
        RunError: the job is deleted.
    """
    broken = 0
    while True:
        job = api.ray_job(name)
        if job is None:
            raise RunError(f"{name} was deleted; submit it again to go on where it stopped")
        yield job
        try:
            for change in api.watch(job):
                if change is None:
                    break
                broken = 0
                yield change
        except Fault as fault:
            time.sleep(pause_s(broken, fault.retry_after_s))
            broken += 1


def tell_log(api: KubeApi, name: str, say: Say) -> None:
    """The log of the newest pod that submits the job, as far as it is."""
    pods = _pods(api, name)
    if not pods:
        raise RunError(
            f"{name}: no pod has submitted it yet, or the pods are deleted; see `multicsr status {name}`"
        )
    try:
        for line in api.log(pods[-1].metadata.name, follow=False):
            say(line.partition(" ")[2])
    except Fault as fault:
        raise RunError(f"{name}: its log cannot be read: {fault.text}") from fault


def _pods(api: KubeApi, name: str) -> list[Pod]:
    """Of the operator's batch Job, which is called as the RayJob is; oldest first."""
    pods = [pod for pod in api.pods(f"job-name={name}") if pod.status.phase not in ("", "Pending")]
    return sorted(pods, key=lambda pod: pod.metadata.creationTimestamp)


class _LogThread(threading.Thread):
    """Tells the log of every pod that submits the job, one after the other."""

    def __init__(self, api: KubeApi, name: str, say: Say) -> None:
        super().__init__(daemon=True, name=f"log of {name}")
        self._api, self._name, self._say = api, name, say
        self._over = threading.Event()
        self._told: dict[str, str] = {}
        """Pod -> time of the last line that was told."""
        self._ended: set[str] = set()

    def run(self) -> None:
        try:
            while not self._over.is_set():
                self._tell_all()
                self._over.wait(_LOOK_S)
            self._tell_all()
        except RunError as error:
            self._say(f"the log cannot be told: {error}")

    def finish(self, rest_s: float) -> None:
        """Nobody follows any more; wait a moment for what the log still has."""
        self._over.set()
        self.join(rest_s)

    def _tell_all(self) -> None:
        for pod in _pods(self._api, self._name):
            if pod.metadata.uid not in self._ended:
                self._tell(pod)
                if pod.status.phase in ("Succeeded", "Failed"):
                    self._ended.add(pod.metadata.uid)

    def _tell(self, pod: Pod) -> None:
        """The lines that were not told yet; a broken connection is taken up again at the next look."""
        try:
            for line in self._api.log(pod.metadata.name, follow=True):
                when, _, text = line.partition(" ")
                if when > self._told.get(pod.metadata.uid, ""):
                    self._told[pod.metadata.uid] = when
                    self._say(text)
        except Fault:
            return
