"""deploy/kuberay: valid as far as schemas tell, and in step with serve_config.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import ray
import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from config.settings import AppConfig, TaskSettings
from launcher.__main__ import PRIORITIES
from launcher.idle_memory import VARIABLES as IDLE_MEMORY
from tests.kuberay_schema import RayCluster, RayService

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kuberay"
KUBERNETES = "1.33"
DRAIN = "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"
ON_A_CLUSTER = {"weights_url", "data_dir", "access", "ingress", "deadlines"}
"""Arguments that one machine leaves at their defaults."""


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


@pytest.fixture(scope="module")
def service() -> RayService:
    [document] = documents("rayservice.yaml")
    return RayService.model_validate(document)


@pytest.fixture(scope="module")
def cluster(service: RayService) -> RayCluster:
    return service.spec.rayClusterConfig


@pytest.fixture
def serve_config(service: RayService) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(service.spec.serveConfigV2)
    return content


def shipped() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    return content


def pods(cluster: RayCluster) -> dict[str, dict[str, Any]]:
    groups = {group.groupName: group.template for group in cluster.workerGroupSpecs}
    return {"head": cluster.headGroupSpec.template, **groups}


def container(pod: dict[str, Any]) -> dict[str, Any]:
    [found] = pod["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def environment(pod: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container(pod)["env"]}


@pytest.mark.parametrize("name", ["head", "cpu", "gpu"])
def test_pods_are_those_of_kubernetes(cluster: RayCluster, name: str) -> None:
    pod = pods(cluster)[name]
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod["spec"]}
    kubernetes_validate.validate(document, KUBERNETES, strict=True)
    assert set(pod) == {"metadata", "spec"}


@pytest.mark.parametrize("name", ["storage.yaml", "front.yaml", "network-policy.yaml"])
def test_other_resources_are_those_of_kubernetes(name: str) -> None:
    for document in documents(name):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("misspelt", ["rayClusterSpec", "gcsFaultTolerance"])
def test_an_unknown_field_is_found(misspelt: str) -> None:
    [document] = documents("rayservice.yaml")
    document["spec"]["rayClusterConfig"][misspelt] = {}
    with pytest.raises(ValidationError, match=misspelt):
        RayService.model_validate(document)


def test_the_application_is_that_of_serve_config(serve_config: dict[str, Any]) -> None:
    ServeDeploySchema.model_validate(serve_config)
    expected = shipped()
    assert serve_config["http_options"].pop("host") == "0.0.0.0"  # noqa: S104 - a pod's own
    del expected["http_options"]["host"]
    [ours], [theirs] = serve_config["applications"], expected["applications"]
    for environment in (ours["runtime_env"]["env_vars"], theirs["runtime_env"]["env_vars"]):
        environment.pop(DRAIN)
    args, plain = ours.pop("args"), theirs.pop("args")
    assert serve_config == expected
    assert set(args) - set(plain) == ON_A_CLUSTER
    assert all(same_task(args[name], plain[name]) for name in plain), "a setting differs"


def same_task(ours: Any, theirs: Any) -> bool:
    """Equal but for replicas, and for `auto`, which means nothing while no GPU node is up."""
    if not isinstance(theirs, dict):
        return bool(ours == theirs)
    plain = dict(theirs)
    if plain["num_gpus"] == "auto":
        plain["num_gpus"] = plain["gpu_share"]
    return {**ours, "max_replicas": None} == {**plain, "max_replicas": None}


def test_the_settings_are_valid(
    service: RayService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text(yaml.safe_dump({"keys": [{"name": "a", "key": "k" * 32}]}))
    keys.chmod(0o600)
    [application] = yaml.safe_load(service.spec.serveConfigV2)["applications"]
    args = application["args"]
    args["access"]["keys_file"] = str(keys)
    config = AppConfig.model_validate(args)
    assert config.access.requires_key
    longest = max(config.deadlines.generation_s, config.deadlines.document_s)
    assert config.deadlines.drain_s >= longest
    assert service.spec.rayClusterDeletionDelaySeconds >= longest


def test_variables_reach_head_and_workers(
    cluster: RayCluster, serve_config: dict[str, Any]
) -> None:
    [application] = serve_config["applications"]
    wanted = application["runtime_env"]["env_vars"]
    for name, pod in pods(cluster).items():
        assert environment(pod).items() >= wanted.items(), name
        assert environment(pod)["RAY_USAGE_STATS_ENABLED"] == "0"


def test_nodes_are_as_lean_and_as_polite_as_on_one_machine(cluster: RayCluster) -> None:
    wanted = {**IDLE_MEMORY, **PRIORITIES}
    guide = (ROOT / "docs" / "cluster.md").read_text()
    for name, pod in pods(cluster).items():
        assert environment(pod).items() >= wanted.items(), name
    for name, value in wanted.items():
        assert f" {name}={value}" in guide


def test_the_service_of_serve_has_the_port_that_the_head_names(
    cluster: RayCluster, serve_config: dict[str, Any]
) -> None:
    """KubeRay makes that service from the head's ports, also where it leads to workers only."""
    for name, pod in pods(cluster).items():
        ports = {port["name"]: port["containerPort"] for port in container(pod)["ports"]}
        assert ports["serve"] == serve_config["http_options"]["port"], name


def test_the_head_does_no_work(cluster: RayCluster, serve_config: dict[str, Any]) -> None:
    assert cluster.headGroupSpec.rayStartParams["num-cpus"] == "0"
    [application] = serve_config["applications"]
    assert AppConfig.model_validate({"ingress": application["args"]["ingress"]}).ingress.num_cpus
    assert cluster.rayVersion == ray.__version__


def test_gpu_nodes_come_and_go(cluster: RayCluster) -> None:
    groups = {group.groupName: group for group in cluster.workerGroupSpecs}
    gpu, cpu = groups["gpu"], groups["cpu"]
    assert cluster.enableInTreeAutoscaling
    assert (gpu.minReplicas, gpu.replicas) == (0, 0)
    assert gpu.maxReplicas > 0
    assert container(gpu.template)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert gpu.rayStartParams["num-gpus"] == "1"
    assert cpu.minReplicas >= 2, "one for each replica of the ingress"
    assert "nvidia.com/gpu" not in container(cpu.template)["resources"]["limits"]


def test_every_pod_is_locked_down_and_probed(cluster: RayCluster) -> None:
    for name, pod in pods(cluster).items():
        main = container(pod)
        assert pod["spec"]["securityContext"]["runAsUser"] == 10001, name
        assert main["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert main["resources"]["limits"]["memory"] == main["resources"]["requests"]["memory"]
        assert main["livenessProbe"]["httpGet"]["path"] == "/api/local_raylet_healthz"
        assert "httpGet" in main["readinessProbe"]
        mounts = {mount["name"] for mount in main["volumeMounts"]}
        assert mounts == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_shared_folders_are_mounted(cluster: RayCluster, serve_config: dict[str, Any]) -> None:
    [application] = serve_config["applications"]
    args = application["args"]
    for pod in pods(cluster).values():
        paths = [mount["mountPath"] for mount in container(pod)["volumeMounts"]]
        shared = (args["weights_url"], args["data_dir"], args["access"]["keys_file"])
        for path in (*shared, environment(pod)["INFERENCE_WEIGHTS_DIR"]):
            assert any(path.startswith(mount) for mount in paths), path
        [keys] = [v["secret"] for v in pod["spec"]["volumes"] if v["name"] == "keys"]
        assert not keys["defaultMode"] & 0o007, "the server refuses keys that others may read"


def test_names_fit_together(service: RayService, cluster: RayCluster) -> None:
    resources = {(d["kind"], d["metadata"]["name"]) for d in documents("storage.yaml")}
    fault_tolerance = cluster.gcsFaultToleranceOptions
    assert fault_tolerance is not None
    host, _, port = fault_tolerance.redisAddress.partition(":")
    assert ("Service", host) in resources
    assert port == "6379"
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in pods(cluster).values()
        for volume in pod["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert {("PersistentVolumeClaim", claim) for claim in claims} <= resources
    nodes, _, redis = documents("network-policy.yaml")
    for pod in pods(cluster).values():
        assert pod["metadata"]["labels"] == nodes["spec"]["podSelector"]["matchLabels"]
    [stateful] = [d for d in documents("storage.yaml") if d["kind"] == "StatefulSet"]
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    assert labels == redis["spec"]["podSelector"]["matchLabels"]


def test_clients_reach_the_front_only(service: RayService, serve_config: dict[str, Any]) -> None:
    nodes, front, _ = documents("network-policy.yaml")
    own, behind, *_ = nodes["spec"]["ingress"]
    assert own == {"from": [{"podSelector": nodes["spec"]["podSelector"]}]}
    assert behind["from"] == [{"podSelector": front["spec"]["podSelector"]}]
    port = serve_config["http_options"]["port"]
    assert [p["port"] for p in behind["ports"]] == [port]
    deployment, public = documents("front.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == front["spec"]["podSelector"]["matchLabels"] == public["spec"]["selector"]
    server = f"{service.metadata.name}-serve-svc:{port}"
    assert environment(deployment["spec"]["template"])["FRONT_SERVER"] == server


def test_the_front_knows_its_variables() -> None:
    deployment, _ = documents("front.yaml")
    text = (ROOT / "launcher" / "front.cfg").read_text()
    for name in environment(deployment["spec"]["template"]):
        assert f"presetenv {name} " in text


def test_every_secret_is_made_in_the_guide(cluster: RayCluster) -> None:
    guide = (ROOT / "docs" / "cluster.md").read_text()
    text = "".join((FOLDER / name).read_text() for name in ("rayservice.yaml", "storage.yaml"))
    secrets = set(re.findall(r"secretKeyRef: \{name: ([\w\-]+)", text))
    secrets |= set(re.findall(r"secretName: ([\w\-]+)", text))
    secrets |= set(re.findall(r"secretRef: \{name: ([\w\-]+)", text))
    assert len(secrets) == 3
    for name in secrets:
        assert f"kubectl create secret generic {name}" in guide, name


def test_shares_of_one_gpu_are_those_of_the_defaults(serve_config: dict[str, Any]) -> None:
    [application] = serve_config["applications"]
    config = AppConfig()
    for task, settings in application["args"].items():
        plain = getattr(config, task)
        if isinstance(plain, TaskSettings) and settings["num_gpus"]:
            assert settings["num_gpus"] == plain.gpu_share, task


def test_the_guide_restarts_the_front_by_its_name() -> None:
    """After the service that it looks up at its start has been made anew."""
    deployment, _ = documents("front.yaml")
    guide = " ".join((ROOT / "docs" / "cluster.md").read_text().split())
    assert f"kubectl rollout restart deployment/{deployment['metadata']['name']}`" in guide
