"""What endpoints and close choices cost, in words."""

import pytest

from multicsr.stages.generate.costs import describe_requests, describe_ties


@pytest.mark.parametrize(
    ("counters", "requests", "ties"),
    [
        ({}, "", ""),
        ({"prefix_queries": 10.0, "tie_seconds": 0.0}, "", ""),
        (
            {"ties": 1234.0, "tie_seconds": 5.04},
            "",
            "1,234 tokens too close to call were chosen alone (5.0 s)",
        ),
        (
            {"ties": 1.0, "tie_seconds": 1.6},
            "",
            "1 token too close to call was chosen alone (1.6 s)",
        ),
        (
            {"requests": 2.0, "prompt_tokens": 3000.0, "generated_tokens": 4.0, "cost": 0.5},
            "2 requests, 3,000 tokens read, 4 tokens written, cost 0.5000",
            "",
        ),
    ],
)
def test_costs_in_words(counters, requests, ties):
    assert (describe_requests(counters), describe_ties(counters)) == (requests, ties)
