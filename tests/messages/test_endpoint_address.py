"""The address of an endpoint holds no secret, and decides nothing that is stored."""

import pytest

from multicsr.config_file import load_config
from multicsr.errors import ConfigError
from multicsr.messages.endpoint_address import check_address
from multicsr.stages.generate.fingerprint import writing_settings
from tests.support.tiny_llms import make_config

SECRET = "sk-4f9aQ2xR7tLm0vBz81KpW"
HOLDING_A_SECRET = [
    "https://user:{s}@host/v1",
    "https://{s}@host/v1",
    "https://:{s}@host/v1",
    "https://host/v1?key={s}",
    "https://host/v1?api_key={s}",
    "https://host/v1?API-KEY=short",
    "https://host/v1?%6bey={s}",
    "https://host/v1?api-version=1&subscription-key={s}",
    "https://host/v1?sig={s}",
    "https://host/v1?access_token={s}",
    "https://host/v1?x={s}",
    "https://host/v1?x=4f9aQ2xR7tLm0vBz81KpWq",
    "https://host/v1/{s}",
    "https://host/4f9aQ2xR7tLm0vBz81KpWq/v1",
    "https://host/0123456789abcdef0123456789abcdef/v1",
    "https://host/v1#{s}",
]


@pytest.mark.parametrize("url", HOLDING_A_SECRET)
def test_a_secret_in_an_address_is_rejected_and_not_shown(url, tmp_path):
    url = url.format(s=SECRET)
    path = tmp_path / "config.yaml"
    path.write_text(
        f"name: t\nstore: s\ninput: {{paths: [x]}}\ngenerate: {{omega: 0}}\n"
        f"llm: {{engine: openai, model: m, base_url: {url!r}}}\n"
    )
    with pytest.raises(ConfigError, match="base_url holds") as raised:
        load_config(path)
    assert "4f9aQ2" not in str(raised.value)
    assert SECRET not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("user", ["user", "user:pw", ":pw", ":"])
def test_a_user_in_an_address_is_called_so(user):
    with pytest.raises(ValueError, match="base_url holds a user name or password"):
        check_address(f"https://{user}@host/v1")


@pytest.mark.parametrize(
    "query",
    ["code=abc", "sig=abc", "token=abc", "key=abc", "pwd=abc", "auth=abc", "user=abc", "SAS-Signature="],
)
def test_a_parameter_whose_name_states_that_it_is_a_secret_is_rejected(query):
    """Whatever its value is: a short one looks like no key."""
    with pytest.raises(ValueError, match="base_url holds what looks like a key in its query"):
        check_address(f"https://host/v1?api-version=1&{query}")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host/v1",
        "ftp://host",
        "https://",
        "https://host:port/",
        "https://host:0/v1",
        "https://ho st/v1",
        "https://[::1/v1",
        "https://host/\nv1",
    ],
)
def test_what_is_no_address_is_rejected(url):
    with pytest.raises(ValueError, match="no address such as"):
        check_address(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/v1",
        "https://api.example.com/v1/",
        "https://my-resource.openai.azure.com/openai/deployments/gpt-4o-mini-2024-07-18?api-version=2024-10-21",
        "http://[::1]:8000/v1",
        "https://gateway.example.com/meta-llama-3-70b-instruct-turbo/openai/v1",
    ],
)
def test_ordinary_addresses_pass(url):
    check_address(url)


def test_where_and_how_an_endpoint_is_reached_decides_nothing_that_is_stored():
    def settings(url="https://a/v1", **llm):
        llm = {"engine": "openai", "base_url": url, **llm}
        return writing_settings(make_config("m", llm=llm, generate={"omega": 0}))

    plain = settings()
    assert "https" not in str(plain)
    assert settings("https://b:8443/other/v1") == plain
    assert settings(concurrency=3, timeout_s=9, patience_s=5) == plain
    assert settings(revision="2024-08-06") != plain
    assert settings(model="n") != plain


@pytest.mark.parametrize("name", ["concurrency", "timeout_s", "patience_s"])
def test_settings_of_an_endpoint_have_no_effect_elsewhere(name):
    with pytest.raises(ValueError, match=f"{name} has no effect with engine: fake"):
        make_config("m", llm={"engine": "fake", name: 5})
