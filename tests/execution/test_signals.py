"""Signals end a command as Ctrl-C does: everything is given back, and the exit code is right."""

import os
import signal
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.signals import restore_signals

_COMMAND = """
import signal, sys, threading, time
from multicsr.cli.entrypoint import guarded

def unwind(seconds):
    try:
        print("in", flush=True)
        time.sleep(60)
    finally:
        print("out", flush=True)
        time.sleep(seconds)

def call():
    try:
        {before}
        print("ready", flush=True)
        {work}
    finally:
        print("given back", flush=True)

sys.exit(guarded(call, debug=False))
"""


def started(work: str = "time.sleep(60)", before: str = "pass", **options) -> subprocess.Popen[str]:
    """Start a command; returns when it works."""
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND.format(work=work, before=before)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **{"preexec_fn": restore_signals, **options},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_gives_everything_back(number, code):
    process = started()
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert out == "given back\n"
    last = err.splitlines()[-1]
    assert last == f"ended by {number.name}; run the same command again to go on where it stopped"


def test_a_second_ctrl_c_ends_at_once():
    process = started("unwind(60)")
    assert process.stdout.readline() == "in\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "out\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert out == ""


def test_a_second_sigterm_does_not_disturb_the_first():
    process = started("unwind(2)")
    assert process.stdout.readline() == "in\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "out\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 143
    assert out == "given back\n"


def test_a_command_that_does_not_end_is_ended():
    before = "from multicsr.execution import signals; signals._GRACE_S = 0.5"
    process = started("unwind(60)", before)
    assert process.stdout.readline() == "in\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 143
    assert out == "out\n"


def test_handlers_that_a_library_put_in_place_of_ours_are_replaced():
    before = (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); "
        "from multicsr.execution.signals import install_handlers; install_handlers()"
    )
    process = started(before=before)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 143


def test_the_exit_that_rays_own_handler_makes_counts_as_the_signal():
    process = started("sys.exit(15)")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    assert err.startswith("ended by SIGTERM")


def test_interrupt_that_ray_puts_in_place_of_ours_counts_as_the_signal():
    work = """
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None"""
    process = started(work)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    assert err.startswith("ended by SIGTERM")


def test_what_nohup_ignores_stays_ignored():
    process = started("time.sleep(3)", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert out == "given back\n"


def test_ray_train_has_the_handler_that_the_trainer_replaces():
    from ray.train.torch import TorchTrainer

    assert callable(TorchTrainer._register_sigint_handler)
