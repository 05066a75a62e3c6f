"""Translation of Ray's exceptions: workers, nodes and clusters that are lost, full or unreachable."""

from multicsr.messages.error_chain import class_names, first_sentence, message_of

MEMORY = (
    "give it fewer actors or workers (generate.actors, generate.cpus_per_actor, train.workers), smaller "
    "batches, or a machine with more memory"
)
"""Remedy where memory is used up."""
_RAY: dict[str, str] = {
    "OutOfMemoryError": f"the memory of a node is used up, and Ray ended a worker; {MEMORY}",
    "OutOfDiskError": "Ray found no space left on a node's disk; free some or set RAY_TMPDIR",
    "ObjectStoreFullError": "Ray's object store is full; start Ray with more --object-store-memory",
    "NodeDiedError": "a node of the Ray cluster was lost; run the command again to go on where it stopped",
    "LocalRayletDiedError": "Ray on this machine ended; was it out of memory? Run the command again",
    "AuthenticationError": (
        "the Ray cluster asks for a token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH "
        "or ~/.ray/auth_token to the cluster's own"
    ),
    "GetTimeoutError": "Ray did not answer in time; is the cluster overloaded? `ray status` shows it",
    "RuntimeEnvSetupError": "Ray could not make the environment of a worker",
    "TaskUnschedulableError": "no node of the Ray cluster can run a task; check the resources asked for",
    "ActorUnschedulableError": "no node of the Ray cluster can run an actor; check the resources asked for",
    "TaskPlacementGroupRemoved": "Ray gave up resources that a task had reserved; run the command again",
    "ActorPlacementGroupRemoved": "Ray gave up resources that an actor had reserved; run the command again",
    "TaskCancelledError": "a Ray task was cancelled; run the command again to go on where it stopped",
}
_WORKER_LOST = {
    "ActorDiedError",
    "RayActorError",
    "ActorUnavailableError",
    "WorkerCrashedError",
    "OwnerDiedError",
}


def translate_ray(error: BaseException) -> str | None:
    """Translate a RayError; a RayTaskError is not passed here, because its cause is translated instead."""
    names = class_names(error)
    if "running low on memory" in message_of(error):
        return _RAY["OutOfMemoryError"]
    if "UserCodeException" in names:
        return None  # Ray Data keeps the exception as text only
    for name, line in _RAY.items():
        if name in names:
            return f"{line} ({first_sentence(error)})" if name == "RuntimeEnvSetupError" else line
    if names & _WORKER_LOST:
        return (
            f"a Ray worker died: {first_sentence(error)}; run the command again to go on, and if the "
            f"system's log shows that memory was used up, {MEMORY}"
        )
    if "ObjectLostError" in names:
        return "an object in Ray's store was lost with its node; run the command again to go on"
    if "RayError" in names:
        return f"Ray: {first_sentence(error) or type(error).__name__}"
    return None
