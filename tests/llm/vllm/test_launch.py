"""Errors of vLLM at the start of an engine: killed processes are told from mistakes in the settings."""

import pytest

from multicsr.llm.vllm.launch import _was_killed

START = "Engine core initialization failed. See root cause above. Failed core proc(s): "


@pytest.mark.parametrize(
    ("message", "cause", "killed"),
    [
        (START + "{'EngineCore': -9}", None, True),
        (START + "{'EngineCore_DP0': -15, 'EngineCore_DP1': 0}", None, True),
        (START + "{'EngineCore': -9}", "ValueError: printed before", True),
        (START + "{}", None, True),
        (START + "{}", "ValueError: no such dtype", False),
        (START + "{'EngineCore': 1}", "ValueError: no such dtype", False),
        (START + "{'EngineCore': 1}", None, False),
        ("Model architectures ['X'] are not supported", None, False),
    ],
)
def test_a_killed_process_is_no_mistake_in_the_settings(message, cause, killed):
    assert _was_killed(RuntimeError(message), cause) is killed
