"""Kubeconfigs that cannot be used: one line that names the file and the entry, before any server is asked."""

import json
import sys

import pytest
import yaml
from typer.testing import CliRunner

from multicsr.cli.main import app
from multicsr.deploy.submit import retry

COMMANDS = [("jobs",), ("status", "x"), ("logs", "x"), ("stop", "x")]


@pytest.fixture
def jobs(kube, tmp_path, monkeypatch):
    """Run `jobs` with a kubeconfig: text, bytes, or a change of the one that works."""
    file = tmp_path / "kubeconfig"

    def call(content, *words):
        if callable(content):
            tree = kube.kubeconfig()
            content(tree)
            content = yaml.safe_dump(tree)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return CliRunner().invoke(app, [*(words or ("jobs",)), "--to", "k8s"])

    return call


def line_of(failed, kube) -> str:
    assert (failed.exit_code, failed.stdout) == (2, ""), failed.output
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1, failed.stderr
    assert kube.requests == []
    return failed.stderr


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_kubeconfig_that_is_no_yaml_is_one_line_for_every_command(jobs, kube, tmp_path, words):
    line = line_of(jobs("a: [b\n\tc: }", *words), kube)
    assert line.startswith(f"error: kubeconfig {tmp_path}/kubeconfig: it is not YAML")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        b"- a\n- b\n",
        b"\xff\xfe\x00\x80",
        b"apiVersion: v1\n",
        b"clusters: 7\ncontexts: {}\nusers: x\ncurrent-context: fake\n",
        b"clusters: [1]\ncontexts: [2]\nusers: [3]\ncurrent-context: fake\n",
        b"contexts: [{name: fake}]\ncurrent-context: fake\n",
        b"contexts: [{name: fake, context: 7}]\nclusters: [{name: x}]\ncurrent-context: fake\n",
        b"!!python/object/apply:os.system ['true']\n",
    ],
)
def test_a_file_that_is_no_kubeconfig_is_one_line(jobs, kube, tmp_path, content):
    assert f"{tmp_path}/kubeconfig" in line_of(jobs(content), kube)


def test_a_directory_instead_of_a_file_is_one_line(jobs, kube, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path))
    assert str(tmp_path) in line_of(CliRunner().invoke(app, ["jobs", "--to", "k8s"]), kube)


def _user(**entry):
    def change(tree):
        tree["users"][0]["user"] = entry

    return change


def _cluster(**entry):
    def change(tree):
        tree["clusters"][0]["cluster"] = entry

    return change


def _exec(command, **more):
    return _user(exec={"apiVersion": "client.authentication.k8s.io/v1", "command": command, **more})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_exec("no-such-plugin"), "user me: the exec plugin no-such-plugin is not installed; install it"),
        (_exec("no-such-plugin", installHint="see our wiki"), "is not installed; see our wiki"),
        (_exec("/no/such/plugin"), "the exec plugin /no/such/plugin is not installed"),
        (_exec("false"), "the exec plugin false gives no credentials: exec: process returned 1"),
        (_exec("echo", args=["nonsense"]), "plugin echo gives no credentials: exec: failed to decode"),
        (_exec("echo", args=["{}"]), "the exec plugin echo gives no credentials"),
        (
            _exec(sys.executable, args=["-c", "import sys; sys.exit('session expired: log in')"]),
            "session expired: log in",
        ),
        (_user(**{"auth-provider": {"name": "azure"}}), "no credentials can be had from auth-provider"),
        (_user(exec={"apiVersion": "client.authentication.k8s.io/v1"}), "user me: exec names no command"),
        (_exec(["aws", "eks"]), "user me: exec names no command"),
        (_user(exec="aws"), "no credentials can be had from exec"),
        (_user(**{"auth-provider": {"name": "gcp"}}), "install gke-gcloud-auth-plugin"),
        (_user(tokenFile="/no/such/token"), "/no/such/token: No such file or directory"),
        (_user(token="abc\ndef"), "user me of kubeconfig"),
        (_user(token="schlüssel"), "its token has characters that no token has"),
        (_cluster(server="https://h", **{"proxy-url": "socks5://h:1"}), "proxy-url: write http://HOST:PORT"),
        (_cluster(server="https://h", **{"proxy-url": 5}), "proxy-url: write http://HOST:PORT"),
        (lambda tree: tree.update({"current-context": ["fake"]}), "object with name [...] in"),
        (lambda tree: tree["users"][0].update(user="me"), "must be lists of entries"),
        (_cluster(), "server"),
        (_cluster(server="api.example:6443"), "server of cluster fake: write https://HOST:PORT"),
        (_cluster(server="https://h", **{"certificate-authority-data": "%%%"}), "kubeconfig"),
        (_cluster(server="https://h", **{"certificate-authority": "/no/such/ca"}), "/no/such/ca"),
        (lambda tree: tree["contexts"][0]["context"].update(user="you"), "names the user you, who is not"),
        (lambda tree: tree["contexts"][0]["context"].update(cluster="b"), "name b in"),
        (lambda tree: tree.update({"current-context": "other"}), "name other in"),
    ],
)  # fmt: skip
def test_an_entry_that_cannot_be_used_is_one_line(jobs, kube, change, message):
    if message.startswith("no credentials"):  # over http, as `kubectl proxy`, none are needed
        inner, change = change, lambda tree: (inner(tree), _cluster(server="https://h")(tree))
    assert message in line_of(jobs(change), kube)


def test_a_context_that_is_not_there_is_one_line(jobs, kube):
    line = line_of(jobs(lambda tree: None, "jobs", "--context", "other"), kube)
    assert line.startswith("error: --context other: ")


def test_an_exec_plugin_that_works_is_used(jobs, kube):
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    answer["status"] = {"token": next(iter(kube.tokens))}
    done = jobs(_exec("echo", args=[json.dumps(answer)]))
    assert done.exit_code == 0, done.output


SECRET = "top-secret-7f3a"


@pytest.mark.parametrize(
    "change",
    [
        _user(**{"auth-provider": {"name": "oidc", "config": {"client-secret": SECRET}}}),
        _exec("echo", env=[{"name": "A", "value": SECRET}, {"name": "B"}]),
        _user(token=f"{SECRET}\nx"),
        _user(token=f"{SECRET}ü"),
        _exec("echo", args=[json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "key": SECRET})]),
        lambda tree: tree["users"].append({"user": {"token": SECRET}}),
        lambda tree: tree["users"].append({"name": "me", "token": SECRET}),
        lambda tree: tree["contexts"][0].update(context=None, token=SECRET),
        lambda tree: tree["clusters"][0].update(cluster={"token": SECRET}),
        f"users: [{{user: {{token: {SECRET}}} password: {SECRET}",
        f"users:\n- user:\n    token: {SECRET}\n   bad: [",
    ],
)
def test_no_message_repeats_a_secret_of_the_kubeconfig(jobs, change):
    done = jobs(change)
    assert SECRET not in done.output
    assert done.output.count("\n") == 1


def test_the_proxy_of_a_cluster_is_used(jobs, kube, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    done = jobs(_cluster(server="http://api.invalid", **{"proxy-url": kube.url}))
    assert done.exit_code == 0, done.output
    assert kube.requests[0].startswith("GET http://api.invalid/apis/ray.io/v1/")


def test_a_proxy_that_does_not_answer_is_named(jobs, monkeypatch):
    monkeypatch.setattr(retry, "TRIES", 1)
    done = jobs(_cluster(server="https://api.invalid", **{"proxy-url": "http://127.0.0.1:9"}))
    assert done.exit_code == 1
    assert "127.0.0.1:9 cannot be reached" in done.stderr


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("namespace", ["", "a/b", "../x", "X", "x?watch=1", "x\n", "%2e", "-x", "x" * 64])
def test_a_namespace_that_cannot_be_is_one_line(jobs, kube, words, namespace):
    done = jobs(lambda tree: None, *words, f"--namespace={namespace}")
    assert line_of(done, kube).startswith(f"error: --namespace {namespace.strip()}")


@pytest.mark.parametrize(
    "name", ["", ".", "../pods/x", "../../x/rayjobs/y", "x?watch=1", "x/log", "x\n", "%2e%2e", "x" * 254]
)
@pytest.mark.parametrize("words", [("status",), ("logs",), ("logs", "--follow"), ("stop",)], ids=" ".join)
def test_a_name_that_cannot_be_is_no_job_and_asks_for_nothing(jobs, kube, words, name):
    done = jobs(lambda tree: None, words[0], name, *words[1:])
    assert (done.exit_code, kube.requests) == (1, [])
    assert done.stderr.startswith("error: no job ")
    assert done.stderr.count("\n") == 1


def test_the_longest_names_are_asked_for(jobs, kube):
    name = f"{'x' * 253}"
    assert jobs(lambda tree: None, "status", name, f"--namespace={'n' * 63}").exit_code == 1
    (asked,) = kube.requests
    assert asked.endswith(f"/namespaces/{'n' * 63}/rayjobs/{name}")
