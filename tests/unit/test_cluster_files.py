"""Files for clouds and clusters: valid by Ray's schema and KubeRay's fields; closed, and without keys."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from temper.cluster.resources import limits
from temper.credentials import find_secrets
from temper.errors import UsageError

ROOT = Path(__file__).parents[2]
KUBERNETES = sorted((ROOT / "jobs/kubernetes").glob("*.yaml"))


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    document = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    validate_config(prepare_config(document))
    return dict(document)


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.update(idle_timeout=3),
        lambda one: one["available_node_types"]["head"].update(spot=True),
        lambda one: one["available_node_types"]["gpu_spot"].update(min_workers=99),
        lambda one: one.update(head_node_type="leader"),
    ],
    ids=["unknown key", "unknown key of a type", "min above max", "no such head"],
)
def test_ray_s_schema_refuses_what_is_wrong(cluster: dict[str, Any], change: Any) -> None:
    """Else the fixture above would prove nothing."""
    import copy

    from ray.autoscaler._private.util import prepare_config, validate_config

    broken = copy.deepcopy(cluster)
    change(broken)
    with pytest.raises(Exception):  # noqa: B017  # Ray's several errors and jsonschema's
        validate_config(prepare_config(broken))


def test_the_head_leads_and_does_no_work(cluster: dict[str, Any]) -> None:
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"], "a cluster dies with its head"


def test_gpu_workers_come_on_spot_first_and_on_demand_then(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    workers = {name: one for name, one in types.items() if name != cluster["head_node_type"]}
    assert all(one["min_workers"] == 0 for one in workers.values())
    gpus = [one for one in workers.values() if one["resources"].get("GPU")]
    spot, on_demand = sorted(gpus, key=lambda one: -one["priority"])
    assert spot["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in on_demand["node_config"]
    assert spot["resources"] == on_demand["resources"]
    assert spot["max_workers"] > on_demand["max_workers"] >= 1
    assert any(one["resources"].get("GPU", 0) == 0 < one["resources"]["CPU"] for one in workers.values())
    assert cluster["idle_timeout_minutes"] <= 15
    # Priorities are the second autoscaler's.
    assert "RAY_enable_autoscaler_v2=1" in cluster["head_start_ray_commands"][-1]


def test_jobs_hear_how_far_the_cluster_grows(
    cluster: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worked out from the node types: those with GPUs first, as many nodes as there may be."""
    types = [
        one for name, one in cluster["available_node_types"].items() if name != cluster["head_node_type"]
    ]
    nodes = [one["resources"] for one in types for _ in range(one["max_workers"])]
    nodes = sorted(nodes, key=lambda one: -one["GPU"])[: cluster["max_workers"]]
    (said,) = re.findall(r"TEMPER_CLUSTER_MAX=(\S+)", cluster["head_start_ray_commands"][-1])
    assert said_limits(said, monkeypatch) == {
        kind: sum(one[kind] for one in nodes) for kind in ("CPU", "GPU")
    }


def said_limits(said: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    monkeypatch.setenv("TEMPER_CLUSTER_MAX", said)
    return limits()


@pytest.mark.parametrize("said", ["8", "CPU=8;GPU=1", "CPU=many", "TPU=4", "CPU=-1"])
def test_a_limit_of_a_cluster_that_is_none_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="expected a form such as 'CPU=128,GPU=10'"):
        said_limits(said, monkeypatch)


def test_nothing_but_ssh_is_public(cluster: dict[str, Any]) -> None:
    """The rules that Ray would make of this file, by Ray's own function."""
    pytest.importorskip("boto3")
    from ray.autoscaler._private.aws.config import _create_default_inbound_rules

    given = cluster["provider"]["security_group"].get("IpPermissions", [])
    rules = _create_default_inbound_rules({"sg-own"}, given)
    from_outside = [rule for rule in rules if rule.get("IpRanges") or rule.get("Ipv6Ranges")]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in from_outside] == [(22, 22)]
    assert all(
        rule.get("UserIdGroupPairs") == [{"GroupId": "sg-own"}] for rule in rules if rule not in from_outside
    )
    (head,) = cluster["head_start_ray_commands"]
    assert "--dashboard-host=127.0.0.1" in head


def test_nodes_ask_for_the_token_and_hold_no_key(cluster: dict[str, Any]) -> None:
    for command in [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]:
        assert "RAY_AUTH_MODE=token" in command
        assert "RAY_AUTH_TOKEN" not in command, "the token comes in its file"
    assert cluster["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    assert list(find_secrets(cluster)) == []
    for name, one in cluster["available_node_types"].items():
        assert one["node_config"]["MetadataOptions"]["HttpTokens"] == "required", name
        assert one["node_config"]["IamInstanceProfile"]["Arn"].endswith(
            "temper-head" if name == "head" else "temper-worker"
        )


FIELDS = {
    # The fields that KubeRay 1.5 documents (reference of its API, group ray.io/v1) and that are of use here.
    "RayJobSpec": "activeDeadlineSeconds backoffLimit rayClusterSpec submitterPodTemplate metadata "
    "clusterSelector "
    ""
    "submitterConfig managedBy deletionStrategy entrypoint runtimeEnvYAML jobId submissionMode "
    "entrypointResources "
    "entrypointNumCpus entrypointNumGpus ttlSecondsAfterFinished preRunningDeadlineSeconds "
    ""
    "shutdownAfterJobFinishes suspend",
    "RayClusterSpec": "upgradeStrategy authOptions suspend managedBy autoscalerOptions "
    "headServiceAnnotations "
    "enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec rayVersion "
    "workerGroupSpecs",
    "HeadGroupSpec": "template headService enableIngress resources labels rayStartParams serviceType",
    "WorkerGroupSpec": "suspend groupName replicas minReplicas maxReplicas idleTimeoutSeconds resources "
    "labels "
    "rayStartParams template scaleStrategy numOfHosts",
    "AutoscalerOptions": "resources image imagePullPolicy securityContext idleTimeoutSeconds "
    "upscalingMode version "
    "env envFrom volumeMounts",
    "AuthOptions": "mode secretName enableK8sTokenAuth",
    "GcsFaultToleranceOptions": "redisUsername redisPassword externalStorageNamespace redisAddress",
    "SubmitterConfig": "backoffLimit",
}


def objects(kind: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in KUBERNETES:
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if kind is None or document["kind"] == kind:
                yield f"{path.name}: {document['kind']}", document


def known(kind: str, document: dict[str, Any]) -> dict[str, Any]:
    unknown = set(document) - set(FIELDS[kind].split())
    assert not unknown, f"{kind} has no {unknown}"
    return document


def clusters() -> Iterator[dict[str, Any]]:
    for _, document in objects("RayCluster"):
        yield known("RayClusterSpec", document["spec"])
    for _, document in objects("RayJob"):
        yield known("RayClusterSpec", known("RayJobSpec", document["spec"])["rayClusterSpec"])


def pods() -> Iterator[dict[str, Any]]:
    for one in clusters():
        yield one["headGroupSpec"]["template"]["spec"]
        yield from (group["template"]["spec"] for group in one["workerGroupSpecs"])
    for _, document in objects("StatefulSet"):
        yield document["spec"]["template"]["spec"]


def test_kuberay_knows_every_field() -> None:
    found = list(clusters())
    assert len(found) == 2
    for one in found:
        head = known("HeadGroupSpec", one["headGroupSpec"])
        assert head["serviceType"] == "ClusterIP", "nothing is open to the outside"
        assert "enableIngress" not in head
        assert head["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
        assert known("AuthOptions", one["authOptions"]) == {"mode": "token"}
        known("AutoscalerOptions", one["autoscalerOptions"])
        for group in one["workerGroupSpecs"]:
            known("WorkerGroupSpec", group)
            assert group["minReplicas"] == 0 < group["maxReplicas"]
            assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        names = [group["groupName"] for group in one["workerGroupSpecs"]]
        assert {"gpu-spot", "gpu-on-demand"} <= set(names)


def test_jobs_hear_how_far_kubernetes_lets_a_cluster_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in clusters():
        most = dict.fromkeys(("CPU", "GPU"), 0)
        for group in one["workerGroupSpecs"]:
            asked = group["template"]["spec"]["containers"][0]["resources"]["requests"]
            most["CPU"] += group["maxReplicas"] * int(asked["cpu"])
            most["GPU"] += group["maxReplicas"] * int(asked.get("nvidia.com/gpu", 0))
        (variable,) = one["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
        assert variable["name"] == "TEMPER_CLUSTER_MAX"
        assert said_limits(variable["value"], monkeypatch) == most


def test_the_head_of_a_standing_cluster_remembers_in_redis() -> None:
    ((_, cluster),) = objects("RayCluster")
    options = known("GcsFaultToleranceOptions", cluster["spec"]["gcsFaultToleranceOptions"])
    assert options["redisPassword"] == {
        "valueFrom": {"secretKeyRef": {"name": "temper-redis", "key": "password"}}
    }
    ((_, service),) = objects("Service")
    ((_, redis),) = objects("StatefulSet")
    assert (
        options["redisAddress"]
        == f"redis://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    )
    assert service["spec"]["selector"] == redis["spec"]["template"]["metadata"]["labels"]
    ((_, policy),) = objects("NetworkPolicy")
    assert policy["spec"]["podSelector"]["matchLabels"] == service["spec"]["selector"]


def test_a_job_that_loses_its_cluster_goes_on_with_another() -> None:
    ((_, job),) = objects("RayJob")
    spec = job["spec"]
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"] is True
    known("SubmitterConfig", spec["submitterConfig"])
    environment = yaml.safe_load(spec["runtimeEnvYAML"])
    ours = yaml.safe_load((ROOT / "jobs/runtime_env.yaml").read_text(encoding="utf-8"))
    assert environment["env_vars"].items() <= ours["env_vars"].items()
    from temper.cli.job_command import parse_words

    words = spec["entrypoint"].partition("python jobs/")[2].replace(".py", "", 1).split()
    parsed = parse_words(words)
    assert parsed.sent == tuple(words), "it says --resume itself"
    assert parsed.out.startswith("/shared/")
    assert all((ROOT / word).is_file() for word in words if word.endswith(".yaml"))


def test_pods_may_do_little_and_carry_no_key() -> None:
    for _, document in objects():
        assert list(find_secrets(document)) == []
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"]["memory"]
            plain = [one["name"] for one in container.get("env", []) if "value" in one]
            assert set(plain) <= {"TEMPER_CLUSTER_MAX"}
        if pod["containers"][0]["name"] != "ray-head":
            assert pod["automountServiceAccountToken"] is False


def test_the_runtime_environment_is_one_that_ray_takes() -> None:
    from ray.runtime_env import RuntimeEnv

    document = yaml.safe_load((ROOT / "jobs/runtime_env.yaml").read_text(encoding="utf-8"))
    RuntimeEnv(**document)
    assert document["env_vars"]["PYTHONPATH"] == "platform"
    assert {".git", ".venv", "/tests", "/runs"} <= set(document["excludes"])
    assert list(find_secrets(document)) == []


INSTRUCTION = re.compile(r"^(FROM|WORKDIR|COPY|RUN|USER|ENV)\s+\S")


def test_the_image_is_made_of_the_lock_and_runs_as_no_root() -> None:
    """There is no Docker here: that it parses, and what it says."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    logical = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text))
    lines = [line for line in logical.splitlines() if line.strip()]
    assert all(INSTRUCTION.match(line) for line in lines), lines
    assert lines[0].startswith("FROM ")
    assert "--require-hashes" in text
    users = [line for line in lines if line.startswith("USER")]
    assert users == ["USER temper"]
    assert lines.index(users[0]) > max(index for index, line in enumerate(lines) if line.startswith("RUN"))
    assert list(find_secrets(text)) == []
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".git", ".venv", "**/.env"} <= set(ignored)
    for line in lines:
        if line.startswith("COPY") and "--from" not in line:
            assert all((ROOT / name).exists() for name in line.split()[1:-1])
    version = re.search(r"(?m)^ray==([\d.]+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"))
    assert version is not None
    assert {one["rayVersion"] for one in clusters()} == {version[1]}
